"""Tasks that call ``execute``: they give their place to the runs that they wait for, and take it again."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import cloaca
from cloaca.engine.handle import TaskHandle, current_handle
from cloaca.errors import CloacaError, TaskTimeout
from cloaca.library import nesting, waiting

DEPTH = 60  # more than the slots, and than asyncio's own executor has threads


def runner_with(url: str, slots: int = 1, **settings: Any) -> cloaca.DefaultRunner:
    return cloaca.DefaultRunner.with_config(
        url, cloaca.DefaultRunnerConfig(max_concurrent_tasks=slots, task_timeout_seconds=120, **settings)
    )


def child() -> None:
    with cloaca.WorkflowBuilder("child"):
        cloaca.task(id="leaf", retry_attempts=0)(lambda context: context.set("done", True))


def test_as_many_tasks_as_there_are_slots_may_execute_at_once(url: str) -> None:
    child()
    together = threading.Barrier(4)
    with cloaca.WorkflowBuilder("parent"):
        for number in range(4):

            @cloaca.task(id=f"region{number}", retry_attempts=0)
            def region(context: Any) -> None:
                together.wait(60)  # all four hold the four slots
                context.set("status", runner.execute("child").status)

    with runner_with(url, slots=4) as runner:
        result = runner.execute("parent")

    assert (result.status, result.error_message, result.final_context["status"]) == ("Completed", None, "Completed")


def test_sync_tasks_nest_deeper_than_there_are_slots(url: str) -> None:
    with cloaca.WorkflowBuilder("deep"):

        @cloaca.task(retry_attempts=0)
        def step(context: Any, handle: TaskHandle) -> None:
            assert handle.is_slot_held()
            if context["left"]:
                inner = runner.execute("deep", {"left": context["left"] - 1})
                context["levels"] = inner.final_context["levels"] + 1
            else:
                context["levels"] = 0
            assert handle.is_slot_held()

    with runner_with(url) as runner:
        result = runner.execute("deep", {"left": DEPTH})
        assert runner.execute("deep", {"left": 0}).status == "Completed"  # the slot came back

    assert (result.error_message, result.final_context.get("levels")) == (None, DEPTH)


def test_async_tasks_nest_deeper_than_asyncio_has_threads_several_at_once(url: str) -> None:
    with cloaca.WorkflowBuilder("deep"):

        @cloaca.task(retry_attempts=0)
        async def step(context: Any, handle: TaskHandle) -> None:
            levels = 0
            if context["left"]:
                inner, beside = await asyncio.gather(
                    asyncio.to_thread(runner.execute, "deep", {"left": context["left"] - 1}),
                    asyncio.to_thread(runner.execute, "deep", {"left": 0}),
                )
                assert beside.status == "Completed"
                levels = inner.final_context["levels"] + 1
            context["levels"] = levels
            assert handle.is_slot_held()

    with runner_with(url) as runner:
        result = runner.execute("deep", {"left": DEPTH})

    assert (result.error_message, result.final_context.get("levels")) == (None, DEPTH)


def test_an_async_task_that_calls_execute_in_the_loop_is_refused_at_once() -> None:
    child()
    with cloaca.WorkflowBuilder("parent"):

        @cloaca.task(retry_attempts=0)
        async def blocks(context: Any) -> None:
            runner.execute("child")

    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("parent")

    assert "await asyncio.to_thread(runner.execute" in (result.error_message or "")


def test_a_callback_and_another_runner_nest_too(url: str) -> None:
    child()
    seen: list[str] = []
    with cloaca.WorkflowBuilder("parent"):
        cloaca.task(
            id="calls", retry_attempts=0, on_success=lambda task, context: seen.append(runner.execute("child").status)
        )(lambda context: context.set("other", other.execute("child").status))

    with runner_with(url) as runner, runner_with(":memory:") as other:
        result = runner.execute("parent")

    assert (result.final_context.get("other"), seen) == ("Completed", ["Completed"])


def test_threads_of_a_task_that_carry_its_context_give_its_slot_away(url: str) -> None:
    child()
    with cloaca.WorkflowBuilder("parent"):

        @cloaca.task(retry_attempts=0)
        def fans_out(context: Any, handle: TaskHandle) -> None:
            with ThreadPoolExecutor(5) as pool:
                calls = [pool.submit(contextvars.copy_context().run, runner.execute, "child") for _ in range(5)]
                context["ended"] = [call.result().status for call in calls]
            assert handle.is_slot_held()

    with runner_with(url) as runner:
        result = runner.execute("parent")

    assert (result.error_message, result.final_context.get("ended")) == (None, ["Completed"] * 5)


def test_a_thread_that_waits_long_for_a_slot_says_what_may_be_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waiting, "_STARVED", 0.05)
    child()
    said = threading.Event()

    class Saying(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "copy_context" in record.getMessage():
                said.set()

    handler = Saying()
    logging.getLogger("cloaca.library").addHandler(handler)
    try:
        with cloaca.WorkflowBuilder("parent"):

            @cloaca.task(retry_attempts=0)
            def starts_a_thread(context: Any) -> None:
                thread = threading.Thread(target=runner.execute, args=("child",))
                thread.start()
                assert said.wait(60)  # it has no slot: this task has it

        with runner_with(":memory:") as runner:
            assert runner.execute("parent").status == "Completed"
    finally:
        logging.getLogger("cloaca.library").removeHandler(handler)


def test_a_task_that_takes_too_long_cancels_the_run_that_it_waits_for(lasting: str) -> None:
    ends, ended = threading.Event(), threading.Event()
    inner: list[BaseException | str] = []
    with cloaca.WorkflowBuilder("child"):
        cloaca.task(id="hangs", retry_attempts=0)(lambda context: ends.wait(60))
    with cloaca.WorkflowBuilder("parent"):

        @cloaca.task(retry_attempts=0, timeout_seconds=0.2)
        def impatient(context: Any) -> None:
            try:
                runner.execute("child")
            except BaseException as error:
                inner.append(error)
                raise
            finally:
                ended.set()

    with runner_with(lasting) as runner:
        result = runner.execute("parent")
        assert ended.wait(60)  # although the child's task hangs on
        ends.set()

    assert "longer than its 0.2 s" in (result.error_message or "")
    assert [type(error) for error in inner] == [TaskTimeout]


def test_workflows_that_execute_themselves_without_end_get_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nesting, "_waits", threading.BoundedSemaphore(20))
    deepest: list[BaseException] = []
    with cloaca.WorkflowBuilder("endless"):

        @cloaca.task(retry_attempts=0)
        def step(context: Any) -> None:
            try:
                runner.execute("endless")
            except CloacaError as error:
                deepest.append(error)
                raise

    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.execute("endless").status == "Completed"

    assert len(deepest) == 1
    assert "does a workflow execute itself without end?" in str(deepest[0])


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_where_the_system_has_no_more_threads_nested_calls_raise_and_do_not_hang(
    monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """As at the end of the interpreter since Python 3.12, or at the limit of a container."""
    start = threading.Thread.start
    errors: list[str] = []

    def inner() -> str | None:
        try:
            return runner.execute("deep").error_message
        except RuntimeError as error:
            errors.append(str(error))
            raise

    with cloaca.WorkflowBuilder("deep"):
        if asynchronous:

            @cloaca.task(id="step", retry_attempts=0)
            async def step(context: Any) -> None:
                context["inner"] = await asyncio.to_thread(inner)

        else:

            @cloaca.task(id="step", retry_attempts=0)
            def step(context: Any) -> None:
                context["inner"] = inner()

    with cloaca.DefaultRunner(":memory:") as runner:
        left = [5]

        def limited(thread: threading.Thread) -> None:
            if "cloaca" in thread.name:
                if not left[0]:
                    raise RuntimeError("can't start new thread")
                left[0] -= 1
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)
        runner.execute("deep")  # it would call itself without end
        monkeypatch.undo()

    assert left == [0]
    assert all("thread" in error for error in errors)
    assert asynchronous or len(errors) == 1  # async: asyncio.to_thread itself may be what raises


def test_outside_of_tasks_no_task_is_current() -> None:
    child()
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.execute("child")
    assert current_handle.get() is None
