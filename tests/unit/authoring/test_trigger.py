"""``@trigger`` and ``TriggerResult``."""

from __future__ import annotations

from typing import Any

import pytest

import cloaca
from cloaca import TriggerResult
from cloaca.authoring.registry import Registry
from cloaca.authoring.trigger import TriggerDefinition
from cloaca.errors import DefinitionError


def nothing() -> Any: ...


def config(config: Any) -> Any: ...


def settings(settings: Any) -> Any: ...


def state(state: Any) -> Any: ...


def both(state: Any, config: Any) -> Any: ...


def optional(limit: int = 3) -> Any: ...


def config_and_default(config: Any, limit: int = 3) -> Any: ...


async def asynchronous(config: Any) -> Any: ...


def generator(state: Any) -> Any:
    yield TriggerResult.skip()


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        pytest.param(nothing, (), id="nothing"),
        pytest.param(config, ("config",), id="config"),
        pytest.param(settings, ("config",), id="one of any name is the config"),
        pytest.param(state, ("state",), id="state"),
        pytest.param(both, ("state", "config"), id="both, in the function's order"),
        pytest.param(optional, (), id="a default of its own"),
        pytest.param(config_and_default, ("config",), id="config, and a default of its own"),
        pytest.param(asynchronous, ("config",), id="async"),
        pytest.param(generator, ("state",), id="generator"),
        pytest.param(lambda *args: None, (), id="star args"),
    ],
)
def test_the_function_is_called_with_what_its_parameters_name(
    registry: Registry, function: Any, arguments: tuple[str, ...]
) -> None:
    assert cloaca.trigger(name="t")(function) is function
    assert registry.triggers["t"].arguments == arguments
    assert registry.triggers["t"].is_async is (function is asynchronous)


def test_a_trigger_is_registered_with_what_it_declares(registry: Registry) -> None:
    cloaca.trigger(workflow="w", name="inbox", poll_interval="250ms", allow_concurrent=True)(nothing)
    cloaca.trigger()(nothing)

    assert registry.triggers == {
        "inbox": TriggerDefinition(
            name="inbox", function=nothing, workflow="w", poll_interval="250ms", allow_concurrent=True
        ),
        "nothing": TriggerDefinition(name="nothing", function=nothing, poll_interval="5s"),
    }
    assert registry.triggers["inbox"].interval_seconds == 0.25


def two(config: Any, other: Any) -> Any: ...


def default_first(limit: int = 3, config: Any = None) -> Any: ...


def keyword_only(*, config: Any) -> Any: ...


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        pytest.param(7, {}, "@trigger decorates a function, not int 7", id="not callable"),
        pytest.param(dict, {}, "@trigger decorates a function, not type", id="class"),
        pytest.param(
            two,
            {},
            "trigger 'two': the function needs other; a trigger takes nothing, 'config', 'state' or both",
            id="unknown",
        ),
        pytest.param(
            default_first,
            {},
            "trigger 'default_first': put config and state before the parameters that have defaults",
            id="order",
        ),
        pytest.param(keyword_only, {}, "trigger 'keyword_only': the function needs config", id="keyword only"),
        pytest.param(
            nothing, {"poll_interval": "5"}, "'5' is not a duration: write an integer and ms, s, m or h", id="no unit"
        ),
        pytest.param(nothing, {"poll_interval": 5}, "5 is not a duration", id="a number"),
        pytest.param(
            nothing, {"poll_interval": "99ms"}, "poll_interval is '99ms', but the shortest is 100ms", id="too short"
        ),
        pytest.param(nothing, {"poll_interval": "0s"}, "poll_interval is '0s', but the shortest is 100ms", id="zero"),
        pytest.param(nothing, {"name": ""}, "@trigger: name is a text that is not empty, not ''", id="no name"),
        pytest.param(
            nothing, {"name": 7}, "@trigger: name is a text that is not empty, not 7", id="name that is no text"
        ),
        pytest.param(
            nothing, {"workflow": " "}, "@trigger: workflow is a text that is not empty, not ' '", id="no workflow"
        ),
    ],
)
def test_what_could_never_be_polled_is_refused_at_its_definition(
    registry: Registry, function: Any, arguments: Any, message: str
) -> None:
    with pytest.raises(DefinitionError) as refusal:
        cloaca.trigger(**arguments)(function)

    assert message in str(refusal.value)
    assert registry.triggers == {}


def test_trigger_without_parentheses_says_so() -> None:
    with pytest.raises(DefinitionError, match=r"write @trigger\(\) with parentheses"):
        cloaca.trigger(nothing)  # type: ignore[arg-type]  # the mistake under test


def test_two_triggers_of_one_name_in_a_package_are_refused(registry: Registry) -> None:
    cloaca.trigger(name="t")(nothing)
    with pytest.raises(DefinitionError, match="two triggers have the name 't': rename one of them"):
        cloaca.trigger(name="t")(state)

    assert registry.triggers["t"].function is nothing


def test_in_a_program_of_its_own_a_trigger_defined_again_replaces_the_old_one() -> None:
    registry = Registry()
    registry.add_trigger(TriggerDefinition(name="t", function=nothing))
    registry.add_trigger(TriggerDefinition(name="t", function=state))

    assert registry.triggers["t"].function is state


@pytest.mark.parametrize(
    ("result", "fires", "context", "text"),
    [
        pytest.param(TriggerResult.skip(), False, None, "TriggerResult.Skip", id="skip"),
        pytest.param(TriggerResult.skip("empty"), False, None, "TriggerResult.Skip('empty')", id="skip with a reason"),
        pytest.param(TriggerResult.fire(), True, {}, "TriggerResult.Fire(Context({}))", id="fire"),
        pytest.param(TriggerResult.fire({"a": 1}), True, {"a": 1}, "TriggerResult.Fire(Context({'a': 1}))", id="dict"),
        pytest.param(
            TriggerResult.fire(cloaca.Context({"a": 1}), key="k"),
            True,
            {"a": 1},
            "TriggerResult.Fire(Context({'a': 1}), key='k')",
            id="context and key",
        ),
    ],
)
def test_a_result_says_fire_or_skip(result: TriggerResult, fires: bool, context: Any, text: str) -> None:
    assert (result.is_fire_result(), result.is_skip_result()) == (fires, not fires)
    assert (result.context.to_dict() if result.context is not None else None) == context
    assert repr(result) == text


@pytest.mark.parametrize("key", ["", 7, b"k"], ids=repr)
def test_a_key_is_a_text(key: Any) -> None:
    with pytest.raises(DefinitionError, match=r"TriggerResult.fire: key is .*, but must be a text"):
        TriggerResult.fire(key=key)
