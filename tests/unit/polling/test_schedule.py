"""When a trigger is polled next."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca.polling.schedule import STEP, after_errors, next_poll, phase

INTERVALS = st.floats(0.1, 86_400.0)
TIMES = st.floats(0.0, 1e7)
CHANCES = st.floats(0.0, 1.0, exclude_max=True)


@given(uid=st.uuids(), interval=INTERVALS)
def test_a_phase_lies_in_its_interval_on_a_step(uid: object, interval: float) -> None:
    found = phase(str(uid), interval)
    assert 0 <= found < interval
    step = min(STEP, interval / 5)
    assert math.isclose(found / step, round(found / step), abs_tol=1e-6)


def test_a_hundred_triggers_spread_over_their_interval() -> None:
    steps = [round(phase(f"uid-{number}", 1.0) / STEP) for number in range(100)]
    assert set(steps) == set(range(10))
    assert max(steps.count(step) for step in steps) <= 20


@given(now=TIMES, interval=INTERVALS, chance=CHANCES, jitter=st.floats(0.0, 1.0))
def test_the_next_poll_is_half_an_interval_away_or_more_and_never_two(
    now: float, interval: float, chance: float, jitter: float
) -> None:
    due = next_poll(now=now, interval=interval, uid="u", chance=chance, jitter=jitter)
    most = 1.5 * interval + min(jitter * interval, 1.0)
    assert interval / 2 - 1e-3 <= due - now <= most + 1e-3


def test_polls_that_were_missed_are_left_out() -> None:
    first = next_poll(now=1000.0, interval=1.0, uid="u", chance=0.0)
    late = next_poll(now=first + 7.3, interval=1.0, uid="u", chance=0.0)
    assert (late - first) % 1.0 == pytest.approx(0.0, abs=1e-6)
    assert late - first == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("interval", "errors", "delay"),
    [
        (1.0, 1, 1.0),
        (1.0, 3, 4.0),
        (1.0, 7, 60.0),  # at least up to a minute
        (30.0, 5, 300.0),  # ten intervals
        (600.0, 9, 3600.0),  # at most an hour
        (7200.0, 9, 7200.0),  # or the interval itself
        (1.0, 5_000, 60.0),
    ],
)
def test_after_errors_the_interval_doubles_within_bounds(interval: float, errors: int, delay: float) -> None:
    assert after_errors(now=0.0, interval=interval, errors=errors, chance=0.0) == delay
    assert after_errors(now=0.0, interval=interval, errors=errors, chance=1.0) == pytest.approx(1.1 * delay)
