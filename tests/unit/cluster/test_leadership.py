"""Who leads, decided from what one operator saw by its own clock."""

import pytest
from cloacina_operator.core.leadership import (
    ECHO,
    TOLD,
    LeaseTimes,
    Seen,
    Step,
    next_step,
    observed,
    pause_before_retry,
    watch_is_dead,
    watches_are_dead,
)

from cloaca.store.kubernetes.api import SILENCE, TIMEOUT
from cloaca.store.kubernetes.feed import PAUSES

TIMES = LeaseTimes()
DURATION = 15.0


def seen(holder: str, since: float = 0.0) -> Seen:
    return Seen(holder=holder, renewed="t1", since=since, duration=DURATION)


@pytest.mark.parametrize(
    ("lease", "now", "step"),
    [
        pytest.param(None, 0.0, Step.TAKE, id="there is none"),
        pytest.param(seen(""), 0.0, Step.TAKE, id="released"),
        pytest.param(seen("me"), 99.0, Step.RENEW, id="ours"),
        pytest.param(seen("other"), DURATION - 0.1, Step.WAIT, id="another's, renewed a while ago"),
        pytest.param(seen("other"), DURATION, Step.TAKE, id="another's, run out"),
    ],
)
def test_next_step(lease: Seen | None, now: float, step: Step) -> None:
    assert next_step("me", lease, now) is step


def test_time_counts_from_the_first_sight_of_a_renewal() -> None:
    first = observed(None, "other", "t1", DURATION, 5.0)
    assert observed(first, "other", "t1", DURATION, 9.0) is first
    assert observed(first, "other", "t2", DURATION, 9.0).since == 9.0
    assert observed(first, "third", "t1", DURATION, 9.0).since == 9.0


@pytest.mark.parametrize(
    ("now", "pause"),
    [
        pytest.param(0.0, 2.0, id="the first renewal that failed"),
        pytest.param(8.0, 2.0, id="the last but one"),
        pytest.param(9.5, 0.5, id="the last try is at the deadline"),
        pytest.param(10.0, None, id="the deadline"),
    ],
)
def test_a_leader_tries_until_the_deadline_and_then_stops(now: float, pause: float | None) -> None:
    assert pause_before_retry(0.0, now, TIMES) == pause


@pytest.mark.parametrize(
    ("times", "safe"),
    [
        pytest.param(TIMES, True, id="the defaults"),
        pytest.param(LeaseTimes(duration=60, renew_deadline=40, retry_period=5), True, id="cert-manager's"),
        pytest.param(LeaseTimes(duration=15, renew_deadline=11, retry_period=2), False, id="the last try is too late"),
        pytest.param(LeaseTimes(duration=5, renew_deadline=10, retry_period=1), False, id="the deadline is too late"),
    ],
)
def test_times_with_which_two_could_lead_are_refused(times: LeaseTimes, safe: bool) -> None:
    assert (times.fault() is None) is safe


@pytest.mark.parametrize(
    ("moved", "echoed", "dead"),
    [
        pytest.param(100.0, 98.0, False, id="heard of the last but one"),
        pytest.param(100.0, 100.0 - ECHO, False, id="heard a while ago"),
        pytest.param(100.1, 100.0 - ECHO, True, id="not heard for long while it moves"),
    ],
)
def test_a_dead_watch_is_noticed(moved: float, echoed: float, dead: bool) -> None:
    assert watch_is_dead(moved, echoed) is dead


@pytest.mark.parametrize(
    ("answered", "heard", "dead"),
    [
        pytest.param(1000.0, 999.0, False, id="it tells and answers"),
        pytest.param(1000.0, 1000.0 - TOLD, False, id="silent for as long as it may be"),
        pytest.param(1000.1, 1000.0 - TOLD, True, id="it answers, and tells nothing"),
        pytest.param(600.0, 600.0, False, id="away for long: it neither answers nor tells"),
    ],
)
def test_a_server_that_answers_and_tells_nothing_is_noticed(answered: float, heard: float, dead: bool) -> None:
    assert watches_are_dead(answered, heard) is dead


def test_a_watch_is_begun_anew_before_it_is_taken_for_dead() -> None:
    assert SILENCE + TIMEOUT + max(PAUSES) < TOLD
