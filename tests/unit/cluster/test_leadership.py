"""Who leads, decided from what one operator saw by its own clock."""

import pytest
from cloacina_operator.core.leadership import (
    DURATION,
    ECHO,
    GIVE_UP,
    RENEW,
    TOLD,
    Seen,
    Step,
    must_stop,
    next_step,
    observed,
    watch_is_dead,
    watches_are_dead,
)

from cloaca.store.kubernetes.api import SILENCE, TIMEOUT
from cloaca.store.kubernetes.feed import PAUSES


def seen(holder: str, since: float = 0.0) -> Seen:
    return Seen(holder=holder, renewed="t1", since=since)


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
    first = observed(None, "other", "t1", 5.0)
    assert observed(first, "other", "t1", 9.0) is first
    assert observed(first, "other", "t2", 9.0).since == 9.0
    assert observed(first, "third", "t1", 9.0).since == 9.0


def test_a_leader_stops_before_anybody_else_begins_and_a_dead_one_is_replaced_within_15_seconds() -> None:
    assert not must_stop(0.0, GIVE_UP - 0.1)
    assert must_stop(0.0, GIVE_UP)
    assert GIVE_UP + RENEW < DURATION
    assert DURATION + 2 * RENEW < 15


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
