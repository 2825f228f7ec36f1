"""Triggers: ``@trigger`` validates a poll function; ``TriggerResult`` is its answer."""

from __future__ import annotations

from cloaca.authoring.context import Context
from cloaca.authoring.duration import parse_duration
from cloaca.authoring.naming import checked_name
from cloaca.authoring.parameters import Parameters, parameters_of
from cloaca.authoring.registry import active_registry
from cloaca.authoring.value import Value
from cloaca.errors import DefinitionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

MINIMUM_INTERVAL = 0.1  # seconds

_BY_NAME = ("config", "state")


class TriggerResult:
    """What a poll decided: ``TriggerResult.fire(context, key=…)`` or ``TriggerResult.skip(reason)``.

    >>> TriggerResult.fire({"file": "a.csv"}, key="a.csv")
    TriggerResult.Fire(Context({'file': 'a.csv'}), key='a.csv')
    >>> TriggerResult.skip("nothing new").is_skip_result()
    True
    """

    __slots__ = ("context", "key", "reason")

    def __init__(self, context: Context | None, key: str | None, reason: str) -> None:
        self.context = context  # None: a skip
        self.key = key
        self.reason = reason

    @staticmethod
    def fire(context: Context | Mapping[str, Any] | None = None, key: str | None = None) -> TriggerResult:
        """Run the workflow with ``context``. With a ``key`` there is one run for the trigger and that key, ever.

        >>> TriggerResult.fire({"file": "a.csv"}, key="a.csv").context["file"]
        'a.csv'
        """
        if key is not None and (not isinstance(key, str) or not key):
            raise DefinitionError(f"TriggerResult.fire: key is {key!r}, but must be a text that is not empty")
        return TriggerResult(context if isinstance(context, Context) else Context(context), key, "")

    @staticmethod
    def skip(reason: str = "") -> TriggerResult:
        """Do nothing this time; ``reason`` is shown to whoever looks at the trigger.

        >>> TriggerResult.skip("the inbox is empty").reason
        'the inbox is empty'
        """
        return TriggerResult(None, None, reason)

    def is_fire_result(self) -> bool:
        """Whether a workflow is to run.

        >>> TriggerResult.fire().is_fire_result(), TriggerResult.skip().is_fire_result()
        (True, False)
        """
        return self.context is not None

    def is_skip_result(self) -> bool:
        """Whether nothing is to happen.

        >>> TriggerResult.fire().is_skip_result(), TriggerResult.skip().is_skip_result()
        (False, True)
        """
        return self.context is None

    def __repr__(self) -> str:
        if self.context is None:
            return f"TriggerResult.Skip({self.reason!r})" if self.reason else "TriggerResult.Skip"
        return f"TriggerResult.Fire({self.context!r}{'' if self.key is None else f', key={self.key!r}'})"


class TriggerDefinition(Value):
    """One trigger: which function is polled, how often, and what it is called with."""

    name: str
    function: Callable[..., Any]
    workflow: str | None = None  # None: the package's manifest says which
    poll_interval: str = "5s"
    allow_concurrent: bool = False
    arguments: tuple[str, ...] = ()  # of "config" and "state", in the order of the parameters
    is_async: bool = False

    @property
    def interval_seconds(self) -> float:
        """Seconds between two polls."""
        return parse_duration(self.poll_interval)


def trigger(
    workflow: str | None = None,
    name: str | None = None,
    poll_interval: str = "5s",
    allow_concurrent: bool = False,
) -> Callable[[F], F]:
    """Make a function at module level a trigger: it is called every ``poll_interval`` and says fire or skip.

    ``name`` defaults to the function's name. The function takes nothing, or its ``config`` (any single parameter),
    or by name ``config`` and ``state``; it may be async, and may return or yield several results.
    Raises DefinitionError (a ValueError) for anything that could never be polled.

    >>> import cloaca
    >>> @cloaca.trigger(workflow="ingest", poll_interval="10s")
    ... def inbox():
    ...     return cloaca.TriggerResult.skip()
    >>> inbox()
    TriggerResult.Skip
    """
    if callable(workflow):
        raise DefinitionError("write @trigger() with parentheses: without them the function is taken for the workflow")
    if not parse_duration(poll_interval) >= MINIMUM_INTERVAL:
        raise DefinitionError(f"poll_interval is {poll_interval!r}, but the shortest is 100ms")
    for argument, value in (("workflow", workflow), ("name", name)):
        if value is not None:
            checked_name(value, f"@trigger: {argument}")

    def decorate(function: F) -> F:
        if not callable(function) or isinstance(function, type):
            raise DefinitionError(f"@trigger decorates a function, not {type(function).__qualname__} {function!r}")
        trigger_name = name or str(getattr(function, "__name__", type(function).__qualname__))
        takes = parameters_of(function)
        active_registry().add_trigger(
            TriggerDefinition(
                name=trigger_name,
                function=function,
                workflow=workflow,
                poll_interval=poll_interval,
                allow_concurrent=bool(allow_concurrent),
                arguments=_arguments(trigger_name, takes),
                is_async=takes.is_async,
            )
        )
        return function

    return decorate


def _arguments(name: str, takes: Parameters) -> tuple[str, ...]:
    names = takes.positional
    if len(names) == 1 and names[0] not in _BY_NAME and takes.required and not takes.required_keywords:
        return ("config",)  # one parameter of any name is the config, as programs for the other implementation have it
    surplus = [parameter for parameter in takes.required + takes.required_keywords if parameter not in _BY_NAME]
    surplus += [parameter for parameter in takes.required_keywords if parameter in _BY_NAME]
    if surplus and not takes.wrapped:  # else the decorator may give them
        raise DefinitionError(
            f"trigger {name!r}: the function needs {', '.join(surplus)}; a trigger takes nothing, "
            "'config', 'state' or both"
        )
    wanted = tuple(parameter for parameter in names if parameter in _BY_NAME)
    if wanted != names[: len(wanted)]:
        if takes.wrapped:
            return ()
        raise DefinitionError(f"trigger {name!r}: put config and state before the parameters that have defaults")
    return wanted
