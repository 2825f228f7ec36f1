"""When a failed task is tried again."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloaca.authoring.retry import BackoffStrategy, RetryCondition, RetryPolicy
from cloaca.engine.retry import JITTER, retry_delay
from cloaca.errors import ContextError, TaskResultError, TaskTimeout
from cloaca.failure import failure_of

POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(0, 2000),
    backoff=st.one_of(
        st.just(BackoffStrategy.fixed()),
        st.floats(0.01, 100).map(BackoffStrategy.linear),
        st.builds(BackoffStrategy.exponential, st.floats(0.01, 100), st.floats(0.01, 100)),
    ),
    initial_delay_ms=st.integers(0, 10**6),
    max_delay_ms=st.integers(0, 10**6),
    jitter=st.booleans(),
)
GONE = failure_of(OSError())
CHANCE = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("backoff", "seconds"),
    [
        pytest.param(BackoffStrategy.fixed(), [1, 1, 1, 1, 1], id="fixed"),
        pytest.param(BackoffStrategy.linear(), [1, 2, 3, 4, 5], id="linear"),
        pytest.param(BackoffStrategy.linear(0.5), [0.5, 1, 1.5, 2, 2.5], id="linear by halves"),
        pytest.param(BackoffStrategy.exponential(), [1, 2, 4, 8, 10], id="exponential, up to the largest delay"),
        pytest.param(BackoffStrategy.exponential(3, 0.5), [0.5, 1.5, 4.5, 10, 10], id="exponential, base 3"),
    ],
)
def test_the_delay_grows_as_the_strategy_says(backoff: BackoffStrategy, seconds: list[float]) -> None:
    policy = RetryPolicy(max_attempts=5, backoff=backoff, max_delay_ms=10_000, jitter=False)

    assert [retry_delay(policy, failures, GONE, 0.9) for failures in range(1, 7)] == [*seconds, None]


def test_the_default_policy_retries_three_times() -> None:
    delays = [retry_delay(RetryPolicy(), failures, GONE, 0.0) for failures in (1, 2, 3, 4)]

    assert delays == [1, 2, 4, None]


@example(RetryPolicy(initial_delay_ms=0, max_attempts=2000), 2000, 0.5)
@example(RetryPolicy(max_attempts=2000), 2000, 0.5)
@given(POLICIES, st.integers(1, 2000), CHANCE)
def test_no_delay_exceeds_the_largest_or_is_negative(policy: RetryPolicy, failures: int, chance: float) -> None:
    delay = retry_delay(policy, failures, GONE, chance)

    assert (delay is None) == (failures > policy.max_attempts)
    assert delay is None or 0 <= delay <= policy.max_delay_ms / 1000


@given(st.integers(1, 3), CHANCE)
def test_jitter_adds_up_to_a_quarter_and_takes_nothing_away(failures: int, chance: float) -> None:
    plain = retry_delay(RetryPolicy(jitter=False), failures, GONE, chance)
    spread = retry_delay(RetryPolicy(jitter=True), failures, GONE, chance)

    assert plain is not None
    assert spread is not None
    assert plain <= spread <= plain * (1 + JITTER)


@pytest.mark.parametrize(
    ("condition", "error", "retried"),
    [
        pytest.param(RetryCondition.never(), OSError(), False, id="never"),
        pytest.param(RetryCondition.all_errors(), ValueError(), True, id="all"),
        pytest.param(RetryCondition.all_errors(), TaskResultError("str"), False, id="a wrong result never"),
        pytest.param(RetryCondition.all_errors(), ContextError("too large"), False, id="a wrong context never"),
        pytest.param(RetryCondition.transient_only(), ConnectionRefusedError(), True, id="transient: connection"),
        pytest.param(RetryCondition.transient_only(), TaskTimeout("late"), True, id="transient: our time-out"),
        pytest.param(RetryCondition.transient_only(), RuntimeError("read timed out"), True, id="transient: by words"),
        pytest.param(RetryCondition.transient_only(), ValueError("no column"), False, id="not transient"),
        pytest.param(RetryCondition.error_pattern("DEADLOCK"), OSError("deadlock found"), True, id="pattern, any case"),
        pytest.param(RetryCondition.error_pattern(["a", "oserr"]), OSError("x"), True, id="pattern, the error's name"),
        pytest.param(RetryCondition.error_pattern(["lock"]), OSError("gone"), False, id="pattern, another text"),
    ],
)
def test_the_condition_decides_by_the_error(condition: RetryCondition, error: Exception, retried: bool) -> None:
    policy = RetryPolicy(condition=condition)

    assert (retry_delay(policy, 1, failure_of(error), 0.0) is not None) is retried
