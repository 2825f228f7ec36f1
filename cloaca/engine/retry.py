"""Decide whether a failed task is tried again, and when. Pure: chance arrives as an argument."""

from __future__ import annotations

from cloaca.authoring.retry import RetryCondition, RetryPolicy
from cloaca.errors import ContextError, TaskResultError

JITTER = 0.25  # the largest part of a delay that chance adds


def retry_delay(policy: RetryPolicy, failures: int, error: BaseException, chance: float) -> float | None:
    """Seconds until the next try, or None: the task has failed for good.

    ``failures`` counts the tries that failed, from 1; ``chance`` is a number in [0, 1). The delay never exceeds the
    policy's largest.

    >>> retry_delay(RetryPolicy(jitter=False), 2, OSError("gone"), 0.0)
    2.0
    """
    if failures > policy.max_attempts or not worth_retrying(policy.condition, error):
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


def worth_retrying(condition: RetryCondition, error: BaseException) -> bool:
    """Whether the condition covers ``error``; none covers a result that cannot be kept, which no try makes better."""
    if condition.kind == "never" or isinstance(error, (ContextError, TaskResultError)):
        return False
    if condition.kind == "transient":
        return is_transient(error)
    if condition.kind == "pattern":
        text = f"{type(error).__name__}: {error}".lower()
        return any(pattern.lower() in text for pattern in condition.patterns)
    return True


def is_transient(error: BaseException) -> bool:
    """Connection and time-out errors: by type, or by the words that libraries put into theirs."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    text = f"{type(error).__name__} {error}".lower()
    return any(word in text for word in ("timeout", "timed out", "connection", "temporar", "unavailable"))


def _power(base: float, exponent: int) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return float("inf")
