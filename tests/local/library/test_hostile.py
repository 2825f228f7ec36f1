"""Whatever a task, callback or trigger of a program raises or returns: ``execute`` gives a result, on every store."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import hostile
import pytest

import cloaca
from cloaca.failure import MESSAGE_LIMIT
from cloaca.resources import WorkflowRun
from cloaca.resources.phases import RunPhase

PATIENCE = 60.0  # seconds


def workflow(name: str, function: Callable[..., Any], **arguments: Any) -> str:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="only", **{"retry_attempts": 0, "retry_delay_ms": 1, **arguments})(function)
    return name


def runs_of(runner: cloaca.DefaultRunner) -> tuple[WorkflowRun, ...]:
    """What its store has."""
    return runner._ask(runner._store.list(WorkflowRun))


def raising(kind: str) -> Callable[..., None]:
    def function(*_: Any) -> None:
        raise hostile.exception(kind)

    return function


def raising_async(kind: str) -> Callable[..., Any]:
    async def function(context: Any) -> None:
        raise hostile.exception(kind)

    return function


def raising_behind_a_decorator(kind: str) -> Callable[..., Any]:
    return lambda context: raising_async(kind)(context)


@pytest.mark.parametrize("make", [raising, raising_async, raising_behind_a_decorator])
def test_a_task_that_raises_anything_has_failed_and_says_with_what(url: str, make: Callable[[str], Any]) -> None:
    ended = {}
    with cloaca.DefaultRunner(url) as runner:
        for number, kind in enumerate(hostile.EXCEPTIONS):
            result = runner.execute(workflow(f"w{number}", make(kind)))
            ended[kind] = result.status
            message = result.error_message or ""
            assert message.startswith("task 'only' failed: "), kind
            assert len(message) < MESSAGE_LIMIT + 100, kind
        runs = runs_of(runner)

    assert ended == dict.fromkeys(hostile.EXCEPTIONS, "Failed")
    assert [run.status.phase for run in runs] == [RunPhase.FAILED] * len(hostile.EXCEPTIONS)
    assert all(run.status.traceback and "raise hostile.exception(kind)" in run.status.traceback for run in runs)


@pytest.mark.parametrize("condition", ["all", "transient", "never"])
def test_whether_to_try_again_is_decided_about_any_exception(condition: str) -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        for number, kind in enumerate(hostile.EXCEPTIONS):
            name = workflow(f"w{number}", raising(kind), retry_attempts=1, retry_condition=condition)
            assert runner.execute(name).status == "Failed"
        attempts = {run.status.tasks[0].attempts for run in runs_of(runner)}

    assert attempts == {2 if condition == "all" else 1}


def test_a_callback_that_raises_anything_fails_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with cloaca.DefaultRunner(url) as runner:
        for number, kind in enumerate(hostile.EXCEPTIONS):
            good = workflow(f"good{number}", lambda context: context.set("n", 1), on_success=raising(kind))
            assert runner.execute(good).final_context.to_dict() == {"n": 1}
            bad = workflow(f"bad{number}", raising(kind), on_failure=raising(kind))
            assert runner.execute(bad).status == "Failed"
        assert all(run.status.phase.finished for run in runs_of(runner))

    assert len(caplog.messages) == 2 * len(hostile.EXCEPTIONS)
    assert all(message.startswith("task 'only': its callback function raised ") for message in caplog.messages)
    assert all(len(message) < 2_000 and "\n" not in message for message in caplog.messages)


class OddCallable:
    """A callback that cannot even be named."""

    def __call__(self, *_: Any) -> None:
        raise hostile.StrRaises

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no " + name)

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_a_callback_that_cannot_be_named_is_called_by_its_class(caplog: pytest.LogCaptureFixture) -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute(workflow("w", lambda context: None, on_success=OddCallable()))

    assert result.status == "Completed"
    said = "task 'only': its callback OddCallable raised StrRaises: its __str__ raised AttributeError"
    assert caplog.messages == [said]


def test_a_task_that_returns_anything_has_failed(url: str) -> None:
    with cloaca.DefaultRunner(url) as runner:
        for number, kind in enumerate(hostile.VALUES):
            for form, function in enumerate(
                (
                    lambda context, kind=kind: hostile.VALUES[kind](),
                    lambda context, kind=kind: context.set("value", hostile.VALUES[kind]()),
                    lambda context, kind=kind: context._data.__setitem__("value", hostile.VALUES[kind]()),
                    lambda context, kind=kind: setattr(context, "_data", hostile.VALUES[kind]()),
                )
            ):
                result = runner.execute(workflow(f"w{number}x{form}", function))
                assert result.status == "Failed", (kind, form)
        assert all(run.status.phase is RunPhase.FAILED for run in runs_of(runner))


@pytest.mark.parametrize("kind", hostile.SUBCLASSES)
def test_a_subclass_of_a_plain_type_is_kept_as_what_it_is(url: str, kind: str) -> None:
    make, plain = hostile.SUBCLASSES[kind]
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="first")(lambda context: context.set("value", make()))
        cloaca.task(id="second", dependencies=["first"])(lambda context: context.set("seen", context["value"]))
    with cloaca.DefaultRunner(url) as runner:
        result = runner.execute("w")
        assert result.final_context.to_dict() == {"value": plain, "seen": plain}
        assert runs_of(runner)[0].status.context == {"value": plain, "seen": plain}


def test_an_exception_whose_text_never_comes_is_over_at_the_time_limit(url: str) -> None:
    forever = threading.Event()

    class Hangs(Exception):
        def __str__(self) -> str:
            forever.wait()
            return ""

    def function(context: Any) -> None:
        raise Hangs

    with cloaca.DefaultRunner(url) as runner:
        try:
            result = runner.execute(workflow("w", function, timeout_seconds=0.2))
            other = runner.execute(workflow("other", lambda context: None))
        finally:
            forever.set()

    assert result.error_message == "task 'only' failed: TaskTimeout: it took longer than its 0.2 s"
    assert other.status == "Completed"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_a_task_of_the_loop_leaves_behind_cannot_end_the_loop(error: type[BaseException], url: str) -> None:
    """asyncio lets these two through to whoever runs the loop."""

    async def in_the_background() -> None:
        raise error(3)

    async def leaves(context: Any) -> None:
        context["task"] = asyncio.ensure_future(in_the_background()).get_name()
        await asyncio.sleep(0.05)

    async def quick(context: Any) -> None:
        await asyncio.sleep(0)

    with cloaca.DefaultRunner(url) as runner:
        assert runner.execute(workflow("leaves", leaves)).status == "Completed"
        assert runner.execute(workflow("quick", quick)).status == "Completed"


class Large:
    """Stands for what fills the memory."""


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_a_failed_task_held_is_let_go_of_at_once(is_async: bool) -> None:
    """An exception holds the frames of its traceback, and they all that they work with."""
    held: list[weakref.ref[Large]] = []

    def fails(context: Any) -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no room")

    async def fails_on_the_loop(context: Any) -> None:
        fails(context)

    gc.collect()
    gc.disable()
    try:
        with cloaca.DefaultRunner(":memory:") as runner:
            result = runner.execute(workflow("w", fails_on_the_loop if is_async else fails, retry_attempts=2))
            assert result.status == "Failed"
            deadline = time.monotonic() + PATIENCE
            while any(reference() is not None for reference in held) and time.monotonic() < deadline:
                time.sleep(0.01)  # the thread that made the call is on its way back
            assert [reference() for reference in held] == [None] * 3
    finally:
        gc.enable()


def trigger_states(
    function: Callable[[], Any], caplog: pytest.LogCaptureFixture, until: Callable[[], bool]
) -> list[str]:
    """What the log says of polls of ``function``, up to when ``until`` is true."""
    workflow("w", lambda context: None)
    cloaca.trigger(workflow="w", name="odd", poll_interval="100ms")(function)
    with caplog.at_level(logging.WARNING), cloaca.DefaultRunner(":memory:"):
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    return [message for message in caplog.messages if "poll failed" in message]


@pytest.mark.parametrize("kind", ["str raises", "no class", "a large message", "CancelledError", "SystemExit"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_trigger_that_raises_anything_is_polled_again(
    caplog: pytest.LogCaptureFixture, kind: str, is_async: bool
) -> None:
    polls: list[int] = []

    def function() -> Any:
        polls.append(1)
        raise hostile.exception(kind)

    async def async_function() -> Any:
        function()

    failed = trigger_states(async_function if is_async else function, caplog, lambda: len(polls) >= 2)

    assert failed
    assert all(len(message) < 2_000 and "\n" not in message for message in failed)


def test_an_answer_that_never_ends_holds_up_no_other_trigger(caplog: pytest.LogCaptureFixture) -> None:
    """It is gone through where the function was called, not on the runner's loop."""
    gate, polls = threading.Event(), []

    class Endless:
        def __iter__(self) -> Any:
            gate.wait(PATIENCE)
            return iter(())

    def other() -> bool:
        polls.append(1)
        return False

    cloaca.trigger(workflow="w", name="other", poll_interval="100ms")(other)
    try:
        trigger_states(lambda: Endless(), caplog, lambda: len(polls) >= 3 or gate.is_set())
    finally:
        gate.set()
    assert len(polls) >= 3


def test_a_mapping_that_exits_is_refused_to_whoever_gave_it() -> None:
    """Before there is a run: this is the program's own doing."""
    workflow("w", lambda context: None)
    with cloaca.DefaultRunner(":memory:") as runner:
        with pytest.raises(SystemExit):
            runner.execute("w", hostile.OddMapping(a=1))
        assert runs_of(runner) == ()
        assert runner.execute("w", {"a": 1}).status == "Completed"
    assert sys.exc_info() == (None, None, None)
