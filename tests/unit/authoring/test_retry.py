"""Retry policies as values."""

from __future__ import annotations

from typing import Any

import pytest

from cloaca import BackoffStrategy, RetryCondition, RetryPolicy
from cloaca.errors import DefinitionError


def test_the_builder_changes_the_default_policy_step_by_step() -> None:
    policy = (
        RetryPolicy.builder()
        .max_attempts(5)
        .initial_delay(10)
        .max_delay(100)
        .backoff_strategy(BackoffStrategy.linear(2))
        .retry_condition(RetryCondition.error_pattern(["deadlock"]))
        .with_jitter(False)
        .build()
    )

    assert policy == RetryPolicy(
        max_attempts=5,
        initial_delay_ms=10,
        max_delay_ms=100,
        backoff=BackoffStrategy("linear", multiplier=2),
        condition=RetryCondition("pattern", ("deadlock",)),
        jitter=False,
    )


def test_a_builder_may_be_used_for_several_policies() -> None:
    builder = RetryPolicy.builder().max_attempts(1)

    assert builder.max_attempts(2).build() != builder.build() == RetryPolicy(max_attempts=1)


def test_the_default_policy_retries_any_error_three_times() -> None:
    default = RetryPolicy.default()

    assert (default.max_attempts, default.backoff.kind, default.condition.kind) == (3, "exponential", "all")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: RetryPolicy(max_attempts=-1), id="negative attempts"),
        pytest.param(lambda: RetryPolicy.builder().max_attempts(1.5), id="half an attempt"),
        pytest.param(lambda: RetryPolicy(initial_delay_ms=True), id="a bool"),
        pytest.param(lambda: BackoffStrategy.linear(0), id="no growth"),
        pytest.param(lambda: BackoffStrategy.exponential(-1), id="negative base"),
        pytest.param(lambda: BackoffStrategy.exponential(float("inf")), id="infinite base"),
        pytest.param(lambda: RetryCondition.error_pattern([]), id="no pattern"),
        pytest.param(lambda: RetryCondition.error_pattern([""]), id="a pattern that fits all"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(make: Any) -> None:
    with pytest.raises(DefinitionError):
        make()
