"""``@task``: what it takes, what it refuses at definition, and that the function stays a function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

import cloaca
from cloaca.authoring.retry import RetryPolicy
from cloaca.authoring.task import TaskDefinition, definition_of
from cloaca.errors import DefinitionError


def defined(function: Any, **arguments: Any) -> TaskDefinition:
    with cloaca.WorkflowBuilder("w") as builder:
        cloaca.task(**arguments)(function)
    (definition,) = builder.build().tasks.values()
    return definition


def plain(context: Any) -> Any: ...


def with_handle(context: Any, handle: Any) -> Any: ...


def with_task_handle(context: Any, task_handle: Any) -> Any: ...


def with_default(context: Any, limit: int = 3) -> Any: ...


def with_anything(*args: Any, **kwargs: Any) -> Any: ...


async def asynchronous(context: Any) -> Any: ...


def needs_more(database: Any, context: Any, more: Any) -> Any: ...


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def around(*given: Any, **named: Any) -> Any:
        return function(*given, **named)

    return around


class Callable_:
    def __call__(self, context: Any) -> Any: ...

    def method(self, context: Any, handle: Any) -> Any: ...

    async def async_method(self, context: Any) -> Any: ...


@pytest.mark.parametrize(
    ("function", "handle", "is_async"),
    [
        pytest.param(plain, False, False, id="function"),
        pytest.param(with_handle, True, False, id="handle"),
        pytest.param(with_task_handle, True, False, id="task_handle"),
        pytest.param(with_default, False, False, id="other parameters have defaults"),
        pytest.param(with_anything, False, False, id="star args"),
        pytest.param(asynchronous, False, True, id="async def"),
        pytest.param(lambda context: None, False, False, id="lambda"),
        pytest.param(Callable_(), False, False, id="object"),
        pytest.param(Callable_().method, True, False, id="method"),
        pytest.param(Callable_().async_method, False, True, id="async method"),
        pytest.param(functools.partial(with_default, limit=4), False, False, id="partial"),
        pytest.param(functools.partial(asynchronous), False, True, id="async partial"),
        pytest.param(functools.partial(lambda n, context, handle: None, 1), True, False, id="partial of the first"),
        pytest.param(print, False, False, id="builtin"),
        pytest.param(decorated(plain), False, False, id="decorated"),
        pytest.param(decorated(with_handle), True, False, id="decorated, with a handle"),
        pytest.param(decorated(decorated(with_handle)), True, False, id="decorated twice"),
        pytest.param(decorated(needs_more), False, False, id="a decorator that gives the rest"),
    ],
)
def test_whatever_can_be_called_with_a_context_can_be_a_task(function: Any, handle: bool, is_async: bool) -> None:
    definition = defined(function, id="t")

    assert (definition.function, definition.takes_handle, definition.is_async) == (function, handle, is_async)


def test_the_id_defaults_to_the_name_of_the_function() -> None:
    assert defined(plain).id == "plain"
    assert defined(plain, id="other").id == "other"


def test_the_function_stays_an_ordinary_callable() -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def double(context: Any) -> Any:
            return context["n"] * 2

    assert double({"n": 2}) == 4
    assert double.__name__ == "double"
    assert definition_of(double) is not None


def test_dependencies_are_ids_and_functions_mixed_each_once() -> None:
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task()
        def a(context: Any) -> Any: ...

        @cloaca.task(id="bee")
        def b(context: Any) -> Any: ...

        @cloaca.task(dependencies=["a", b, a, "bee"])
        def c(context: Any) -> Any: ...

    assert builder.build().dependencies == {"a": (), "bee": (), "c": ("a", "bee")}


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        pytest.param({}, {}, id="the default policy"),
        pytest.param({"retry_attempts": 0}, {"max_attempts": 0}, id="none"),
        pytest.param(
            {"retry_delay_ms": 5, "retry_max_delay_ms": 9}, {"initial_delay_ms": 5, "max_delay_ms": 9}, id="delays"
        ),
        pytest.param({"retry_jitter": False}, {"jitter": False}, id="jitter"),
        pytest.param({"retry_backoff": "fixed"}, {"backoff": cloaca.BackoffStrategy.fixed()}, id="fixed"),
        pytest.param({"retry_backoff": "linear"}, {"backoff": cloaca.BackoffStrategy.linear()}, id="linear"),
        pytest.param({"retry_backoff": "exponential"}, {}, id="exponential"),
        pytest.param({"retry_condition": "never"}, {"condition": cloaca.RetryCondition.never()}, id="never"),
        pytest.param(
            {"retry_condition": "transient"}, {"condition": cloaca.RetryCondition.transient_only()}, id="transient"
        ),
        pytest.param({"retry_condition": "all"}, {}, id="all"),
    ],
)
def test_the_retry_arguments_change_the_default_policy(arguments: Any, changes: Any) -> None:
    assert defined(plain, **arguments).retry == RetryPolicy(**changes)


def takes_nothing() -> Any: ...


def takes_two(context: Any, other: Any) -> Any: ...


def takes_three(context: Any, handle: Any, other: Any) -> Any: ...


def takes_a_keyword(context: Any, *, limit: int) -> Any: ...


def generates(context: Any) -> Any:
    yield context


async def generates_async(context: Any) -> Any:
    yield context


TAKES = "a task takes the context and, if it wants, a second parameter named 'handle'"


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        pytest.param(7, {}, "@task decorates a function, not int 7", id="not callable"),
        pytest.param(
            takes_nothing,
            {},
            "task 'takes_nothing': the function takes no argument, but is called with",
            id="no parameter",
        ),
        pytest.param(takes_two, {}, f"task 'takes_two': the function needs context, other; {TAKES}", id="two"),
        pytest.param(
            takes_three, {}, f"task 'takes_three': the function needs context, handle, other; {TAKES}", id="three"
        ),
        pytest.param(
            takes_a_keyword,
            {},
            f"task 'takes_a_keyword': the function needs context, limit; {TAKES}",
            id="keyword only",
        ),
        pytest.param(generates, {}, "task 'generates': the function is a generator", id="generator"),
        pytest.param(generates_async, {}, "task 'generates_async': the function is a generator", id="async generator"),
        pytest.param(plain, {"id": ""}, "a task's id is a text that is not empty, not ''", id="empty id"),
        pytest.param(plain, {"id": " "}, "a task's id is a text that is not empty, not ' '", id="blank id"),
        pytest.param(plain, {"id": 7}, "a task's id is a text that is not empty, not 7", id="id that is no text"),
        pytest.param(
            plain,
            {"id": "a\nb"},
            "a task's id has at most 253 characters, all of them printable: 'a\\nb'",
            id="line break",
        ),
        pytest.param(plain, {"id": "a" * 254}, "at most 253 characters, all of them printable", id="long id"),
        pytest.param(Callable_(), {}, "a task's id is a text that is not empty, not None", id="nameless object"),
        pytest.param(
            plain,
            {"dependencies": "ab"},
            "task 'plain': dependencies is a list: write dependencies=['ab']",
            id="one text",
        ),
        pytest.param(
            plain,
            {"dependencies": [takes_two]},
            "must be either a task id or a function that has @task",
            id="undecorated",
        ),
        pytest.param(plain, {"dependencies": [7]}, "task 'plain': the dependency 7 must be either", id="a number"),
        pytest.param(
            plain, {"retry_attempts": -1}, "max_attempts is -1, but must be an integer of at least 0", id="attempts"
        ),
        pytest.param(plain, {"retry_delay_ms": 1.5}, "initial_delay_ms is 1.5, but must be an integer", id="delay"),
        pytest.param(plain, {"retry_max_delay_ms": True}, "max_delay_ms is True, but must be an integer", id="bool"),
        pytest.param(
            plain,
            {"retry_backoff": "cubic"},
            "retry_backoff is 'cubic', but must be one of fixed, linear, exponential",
            id="backoff",
        ),
        pytest.param(
            plain,
            {"retry_condition": "often"},
            "retry_condition is 'often', but must be one of never, transient, all",
            id="condition",
        ),
        pytest.param(
            plain, {"on_success": "log"}, "task 'plain': on_success is 'log', which cannot be called", id="on_success"
        ),
        pytest.param(
            plain, {"on_failure": 1}, "task 'plain': on_failure is 1, which cannot be called", id="on_failure"
        ),
        pytest.param(
            plain, {"timeout_seconds": 0}, "task 'plain': timeout_seconds is 0, but must be above 0", id="no time"
        ),
        pytest.param(
            plain, {"timeout_seconds": "5s"}, "timeout_seconds is '5s', but must be above 0", id="time as text"
        ),
    ],
)
def test_what_could_never_run_is_refused_at_its_definition(function: Any, arguments: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as refusal, cloaca.WorkflowBuilder("w"):
        cloaca.task(**arguments)(function)

    assert message in str(refusal.value)


def test_a_task_outside_of_a_workflow_says_where_it_belongs() -> None:
    with pytest.raises(
        ValueError, match=r"@task\(id='plain'\) stands outside of a workflow: put it inside `with cloaca"
    ):
        cloaca.task()(plain)


def test_task_without_parentheses_says_so() -> None:
    with pytest.raises(DefinitionError, match=r"write @task\(\) with parentheses"), cloaca.WorkflowBuilder("w"):
        cloaca.task(plain)  # type: ignore[arg-type]  # the mistake under test


@pytest.mark.parametrize("build", [dict, list], ids=["one workflow", "two workflows"])
def test_the_same_function_may_be_a_task_of_several_workflows(build: Callable[..., Any]) -> None:
    for name in ("first", "second"):
        with cloaca.WorkflowBuilder(name) as builder:
            cloaca.task()(plain)
        assert builder.build().dependencies == {"plain": ()}
