"""When a failed task is tried again, as its author declares it. Values only; ``engine.retry`` decides."""

from __future__ import annotations

from cloaca.authoring.value import Value
from cloaca.errors import DefinitionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeVar

    W = TypeVar("W", bound=str)
    Backoff = Literal["fixed", "linear", "exponential"]
    RetryWhen = Literal["never", "transient", "all", "pattern"]

_BACKOFFS: tuple[Backoff, ...] = ("fixed", "linear", "exponential")
_CONDITIONS: tuple[RetryWhen, ...] = ("never", "transient", "all")  # those that need no more than their name


class BackoffStrategy(Value):
    """How the delay grows; made with ``fixed()``, ``linear()`` or ``exponential()``.

    >>> BackoffStrategy.linear(multiplier=2.0).kind
    'linear'
    """

    kind: Backoff
    base: float = 2.0
    multiplier: float = 1.0

    @staticmethod
    def fixed() -> BackoffStrategy:
        """The same delay each time.

        >>> RetryPolicy.builder().backoff_strategy(BackoffStrategy.fixed()).build().backoff.kind
        'fixed'
        """
        return BackoffStrategy("fixed")

    @staticmethod
    def linear(multiplier: float = 1.0) -> BackoffStrategy:
        """The n-th retry waits n × multiplier × the initial delay.

        >>> BackoffStrategy.linear(2.0)
        BackoffStrategy(kind='linear', base=2.0, multiplier=2.0)
        """
        return BackoffStrategy("linear", multiplier=_positive(multiplier, "multiplier"))

    @staticmethod
    def exponential(base: float = 2.0, multiplier: float = 1.0) -> BackoffStrategy:
        """The n-th retry waits base ** (n - 1) × multiplier × the initial delay.

        >>> BackoffStrategy.exponential(base=3.0)
        BackoffStrategy(kind='exponential', base=3.0, multiplier=1.0)
        """
        return BackoffStrategy(
            "exponential", base=_positive(base, "base"), multiplier=_positive(multiplier, "multiplier")
        )


class RetryCondition(Value):
    """Which errors are worth another try.

    >>> RetryCondition.error_pattern("deadlock").patterns
    ('deadlock',)
    """

    kind: RetryWhen
    patterns: tuple[str, ...] = ()

    @staticmethod
    def never() -> RetryCondition:
        """No error is.

        >>> RetryPolicy.builder().retry_condition(RetryCondition.never()).build().condition.kind
        'never'
        """
        return RetryCondition("never")

    @staticmethod
    def transient_only() -> RetryCondition:
        """Connection and time-out errors.

        >>> RetryCondition.transient_only().kind
        'transient'
        """
        return RetryCondition("transient")

    @staticmethod
    def all_errors() -> RetryCondition:
        """Every error.

        >>> RetryCondition.all_errors() == RetryPolicy.default().condition
        True
        """
        return RetryCondition("all")

    @staticmethod
    def error_pattern(patterns: list[str] | str) -> RetryCondition:
        """Errors whose text contains one of ``patterns``, whatever its case.

        >>> RetryCondition.error_pattern(["deadlock", "try again"]).patterns
        ('deadlock', 'try again')
        """
        given = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        if not given or not all(given):
            raise DefinitionError("error_pattern needs at least one text, and none of them empty")
        return RetryCondition("pattern", given)


class RetryPolicy(Value):
    """When and how often a failed task is tried again. Delays in milliseconds.

    >>> RetryPolicy.builder().max_attempts(5).initial_delay(200).with_jitter(False).build().max_attempts
    5
    """

    max_attempts: int = 3
    """Retries after the first try; 0: none."""
    backoff: BackoffStrategy = BackoffStrategy("exponential")
    initial_delay_ms: int = 1000
    max_delay_ms: int = 60_000
    jitter: bool = True
    """Whether up to a quarter of the delay is added at random, so that tasks which failed together part."""
    condition: RetryCondition = RetryCondition("all")

    def __post_init__(self) -> None:
        for name in ("max_attempts", "initial_delay_ms", "max_delay_ms"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise DefinitionError(f"retry policy: {name} is {value!r}, but must be an integer of at least 0")

    @staticmethod
    def builder() -> RetryPolicyBuilder:
        """Start from the default policy and change it step by step.

        >>> RetryPolicy.builder().max_attempts(5).build().max_attempts
        5
        """
        return RetryPolicyBuilder(RetryPolicy())

    @staticmethod
    def default() -> RetryPolicy:
        """Up to 3 retries of any error, exponentially from 1 s to 60 s, with jitter.

        >>> policy = RetryPolicy.default()
        >>> policy.max_attempts, policy.initial_delay_ms, policy.max_delay_ms
        (3, 1000, 60000)
        """
        return RetryPolicy()


class RetryPolicyBuilder:
    """Builds a RetryPolicy; each step returns the builder."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    def max_attempts(self, attempts: int) -> RetryPolicyBuilder:
        """Retries after the first try.

        >>> RetryPolicy.builder().max_attempts(0).build().max_attempts
        0
        """
        return self._with(max_attempts=attempts)

    def initial_delay(self, delay_ms: int) -> RetryPolicyBuilder:
        """Milliseconds before the first retry.

        >>> RetryPolicy.builder().initial_delay(200).build().initial_delay_ms
        200
        """
        return self._with(initial_delay_ms=delay_ms)

    def max_delay(self, delay_ms: int) -> RetryPolicyBuilder:
        """Milliseconds that no delay exceeds.

        >>> RetryPolicy.builder().max_delay(5_000).build().max_delay_ms
        5000
        """
        return self._with(max_delay_ms=delay_ms)

    def backoff_strategy(self, strategy: BackoffStrategy) -> RetryPolicyBuilder:
        """How the delay grows.

        >>> RetryPolicy.builder().backoff_strategy(BackoffStrategy.linear()).build().backoff.kind
        'linear'
        """
        return self._with(backoff=strategy)

    def retry_condition(self, condition: RetryCondition) -> RetryPolicyBuilder:
        """Which errors are worth another try.

        >>> RetryPolicy.builder().retry_condition(RetryCondition.transient_only()).build().condition.kind
        'transient'
        """
        return self._with(condition=condition)

    def with_jitter(self, jitter: bool) -> RetryPolicyBuilder:
        """Whether delays are spread at random.

        >>> RetryPolicy.builder().with_jitter(False).build().jitter
        False
        """
        return self._with(jitter=jitter)

    def build(self) -> RetryPolicy:
        """The policy.

        >>> RetryPolicy.builder().build() == RetryPolicy.default()
        True
        """
        return self._policy

    def _with(self, **changes: object) -> RetryPolicyBuilder:
        from dataclasses import replace  # slow to import, and few build a policy

        return RetryPolicyBuilder(replace(self._policy, **changes))  # type: ignore[arg-type]  # the policy checks them


def policy_from_arguments(
    *,
    attempts: int | None,
    backoff: str | None,
    delay_ms: int | None,
    max_delay_ms: int | None,
    condition: str | None,
    jitter: bool | None,
) -> RetryPolicy:
    """The policy that the ``retry_*`` arguments of ``@task`` mean; None: as in the default policy."""
    default = RetryPolicy()
    return RetryPolicy(
        max_attempts=default.max_attempts if attempts is None else attempts,
        backoff=default.backoff if backoff is None else BackoffStrategy(_one_of(_BACKOFFS, backoff, "retry_backoff")),
        initial_delay_ms=default.initial_delay_ms if delay_ms is None else delay_ms,
        max_delay_ms=default.max_delay_ms if max_delay_ms is None else max_delay_ms,
        jitter=default.jitter if jitter is None else jitter,
        condition=default.condition
        if condition is None
        else RetryCondition(_one_of(_CONDITIONS, condition, "retry_condition")),
    )


def _one_of(accepted: tuple[W, ...], value: str, argument: str) -> W:
    for word in accepted:
        if word == value:
            return word
    raise DefinitionError(f"{argument} is {value!r}, but must be one of {', '.join(accepted)}")


def _positive(value: float, name: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise DefinitionError(f"backoff {name} is {value!r}, but must be a number above 0")
    return value
