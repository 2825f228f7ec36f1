"""Decide whether a failed task is tried again, and when. Pure: chance arrives as an argument."""

from __future__ import annotations

from cloaca.authoring.retry import RetryCondition, RetryPolicy
from cloaca.failure import Failure, FailureKind

JITTER = 0.25  # the largest part of a delay that chance adds


def retry_delay(policy: RetryPolicy, failures: int, failure: Failure, chance: float) -> float | None:
    """Seconds until the next try, or None: the task has failed for good.

    ``failures`` counts the tries that failed, from 1; ``chance`` is a number in [0, 1). The delay never exceeds the
    policy's largest.

    >>> from cloaca.failure import failure_of
    >>> retry_delay(RetryPolicy(jitter=False), 2, failure_of(OSError("gone")), 0.0)
    2.0
    """
    if failures > policy.max_attempts or not worth_retrying(policy.condition, failure):
        return None
    strategy = policy.backoff
    if strategy.kind == "fixed":
        factor = 1.0
    elif strategy.kind == "linear":
        factor = failures * strategy.multiplier
    else:
        factor = _power(strategy.base, failures - 1) * strategy.multiplier
    delay = 0.0  # not 0 × infinity, where the factor has grown beyond all numbers
    if policy.initial_delay_ms:
        delay = min(policy.initial_delay_ms * factor, float(policy.max_delay_ms))
    if policy.jitter:
        delay = min(delay * (1 + JITTER * chance), float(policy.max_delay_ms))
    return delay / 1000


def worth_retrying(condition: RetryCondition, failure: Failure) -> bool:
    """Whether the condition covers ``failure``; none covers a result that cannot be kept, which no try makes better."""
    if condition.kind == "never" or failure.kind is FailureKind.UNKEEPABLE:
        return False
    if condition.kind == "transient":
        return is_transient(failure)
    if condition.kind == "pattern":
        text = failure.text.lower()
        return any(pattern.lower() in text for pattern in condition.patterns)
    return True


def is_transient(failure: Failure) -> bool:
    """Connection and time-out errors: by type, or by the words that libraries put into theirs."""
    if failure.kind is FailureKind.TRANSIENT:
        return True
    text = failure.text.lower()
    return any(word in text for word in ("timeout", "timed out", "connection", "temporar", "unavailable"))


def _power(base: float, exponent: int) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return float("inf")
