"""Triggers of the program itself: really polled by the runner, each in its own time."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from typing import Any

import pytest

import cloaca
from cloaca.errors import ScheduleNotFound
from cloaca.resources.run import WorkflowRun
from cloaca.store import open_store


class Workflow:
    """A workflow that waits where it is told to, and counts what it ran."""

    def __init__(self, name: str = "ingest") -> None:
        self.ran = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.contexts: list[dict[str, Any]] = []
        with cloaca.WorkflowBuilder(name):

            @cloaca.task(id=f"{name}_only")
            def only(context: Any) -> None:
                self.contexts.append(context.to_dict())
                self.ran.release()
                assert self.go_on.wait(60)


def test_a_trigger_is_polled_and_fires_with_its_context(url: str) -> None:
    workflow = Workflow()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def inbox() -> Any:
        return cloaca.TriggerResult.fire({"file": "a.csv"})

    with cloaca.DefaultRunner(url) as runner:
        assert workflow.ran.acquire(timeout=60)
        assert workflow.ran.acquire(timeout=60)
        shown = runner.get_trigger_schedule("inbox")
        fires = runner.get_trigger_execution_history("inbox", None, None)
        assert runner.get_trigger_execution_history("inbox", 1, 1) == fires[1:2] or len(fires) > 2

    assert workflow.contexts[0] == {"file": "a.csv"}
    assert shown is not None
    assert (shown["workflow_name"], shown["poll_interval_ms"], shown["allow_concurrent"]) == ("ingest", 100, False)
    assert shown["last_poll_at"] is not None
    assert set(fires[0]) == {
        *("id", "schedule_id", "context_hash", "workflow_execution_id", "started_at", "completed_at", "created_at")
    }
    assert {fire["context_hash"] for fire in fires} == {fires[0]["context_hash"]}
    assert {fire["schedule_id"] for fire in fires} == {shown["id"]}


def test_a_trigger_that_is_defined_later_is_polled_too() -> None:
    workflow = Workflow()
    with cloaca.DefaultRunner(":memory:"):

        @cloaca.trigger(workflow="ingest", poll_interval="100ms")
        async def late() -> Any:
            return cloaca.TriggerResult.fire()

        assert workflow.ran.acquire(timeout=60)


def test_runs_of_one_trigger_never_overlap_unless_it_allows_it() -> None:
    workflow, polls = Workflow(), threading.Semaphore(0)
    workflow.go_on.clear()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def inbox() -> Any:
        polls.release()
        return cloaca.TriggerResult.fire()

    other, beat = Workflow("beat"), []

    @cloaca.trigger(workflow="beat", poll_interval="100ms", allow_concurrent=True)
    def beats() -> Any:
        beat.append(1)
        return cloaca.TriggerResult.fire()

    with cloaca.DefaultRunner(":memory:"):
        assert workflow.ran.acquire(timeout=60)
        while other.ran.acquire(timeout=60) and len(beat) < 5:  # time passes in which it would have been polled
            pass
        assert len(workflow.contexts) == 1
        workflow.go_on.set()
        assert workflow.ran.acquire(timeout=60)


def test_a_trigger_that_hangs_delays_no_other(caplog: pytest.LogCaptureFixture) -> None:
    workflow, hanging, over = Workflow(), threading.Event(), threading.Event()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def hangs() -> Any:
        hanging.set()
        over.wait(60)
        return cloaca.TriggerResult.skip()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def works() -> Any:
        return cloaca.TriggerResult.fire() if hanging.is_set() else cloaca.TriggerResult.skip()

    with cloaca.DefaultRunner(":memory:"):
        assert workflow.ran.acquire(timeout=60)
        assert workflow.ran.acquire(timeout=60)
        over.set()


def test_a_poll_that_fails_is_told_and_does_not_end_the_polling(caplog: pytest.LogCaptureFixture) -> None:
    workflow, calls = Workflow(), []

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def flaky() -> Any:
        calls.append(1)
        if len(calls) == 1:
            return "fire!"
        return cloaca.TriggerResult.fire()

    with caplog.at_level(logging.WARNING, "cloaca"), cloaca.DefaultRunner(":memory:"):
        assert workflow.ran.acquire(timeout=60)

    assert "trigger flaky: poll failed: TriggerResultError: the function returned str 'fire!'" in caplog.text


def test_a_trigger_that_is_switched_off_is_not_polled_and_stays_off(lasting: str) -> None:
    workflow, beats, calls = Workflow(), Workflow("beat"), []

    @cloaca.trigger(workflow="beat", poll_interval="100ms")
    def beat() -> Any:
        return cloaca.TriggerResult.fire()

    @cloaca.trigger(workflow="ingest", poll_interval="1h")
    def inbox() -> Any:
        calls.append(1)
        return cloaca.TriggerResult.skip()

    with cloaca.DefaultRunner(lasting) as runner:
        runner.set_trigger_enabled("inbox", False)
        assert [entry["trigger_name"] for entry in runner.list_trigger_schedules(True)] == ["beat"]
    with cloaca.DefaultRunner(lasting) as runner:
        shown = runner.get_trigger_schedule("inbox")
        assert shown is not None
        assert not shown["enabled"]
        runner.set_trigger_enabled("inbox", True)
        assert len(runner.list_trigger_schedules(True, None, None)) == 2
        assert beats.ran.acquire(timeout=60)
    assert calls == []
    assert workflow.contexts == []


def test_unknown_triggers_are_none_or_an_error() -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.get_trigger_schedule("nobody") is None
        assert runner.get_trigger_execution_history("nobody") == []
        with pytest.raises(ScheduleNotFound, match="none is registered as 'nobody'; registered: none"):
            runner.set_trigger_enabled("nobody", True)


def test_a_key_fires_once_over_all_polls_and_runners(lasting: str) -> None:
    workflow, polls = Workflow(), threading.Semaphore(0)

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def inbox() -> Any:
        polls.release()
        return [cloaca.TriggerResult.fire({"file": name}, key=name) for name in ("a", "b")]

    for _ in range(2):
        with cloaca.DefaultRunner(lasting):
            for _ in range(2):
                assert polls.acquire(timeout=60)

    assert sorted(context["file"] for context in workflow.contexts) == ["a", "b"]


class InTurn:
    """A workflow that says when it starts, ends when it is told to, and knows how many of it ran at once."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.end = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.numbers: list[int] = []
        self.most, self._now, self._lock = 0, 0, threading.Lock()
        with cloaca.WorkflowBuilder("ingest"):

            @cloaca.task(retry_attempts=0)
            def only(context: Any) -> None:
                with self._lock:
                    self._now += 1
                    self.most = max(self.most, self._now)
                    self.numbers.append(context["number"])
                self.started.release()
                assert self.end.acquire(timeout=60)
                with self._lock:
                    self._now -= 1
                self.ended.release()


async def runs_in(url: str) -> int:
    store = await open_store(url)
    try:
        return len(await store.list(WorkflowRun))
    finally:
        await store.close()


@pytest.mark.parametrize("keyed", [False, True], ids=["without keys", "with keys"])
async def test_several_fires_of_one_poll_run_one_after_the_other_in_their_order(lasting: str, keyed: bool) -> None:
    workflow, polls = InTurn(), []

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def inbox() -> Any:
        polls.append(1)
        if len(polls) > 1:
            return cloaca.TriggerResult.skip()
        return [cloaca.TriggerResult.fire({"number": n}, key=str(n) if keyed else None) for n in range(4)]

    other = Workflow("beat")

    @cloaca.trigger(workflow="beat", poll_interval="100ms", allow_concurrent=True)
    def beats() -> Any:
        return cloaca.TriggerResult.fire()

    with cloaca.DefaultRunner.with_config(lasting, cloaca.DefaultRunnerConfig(max_concurrent_tasks=8)):
        assert workflow.started.acquire(timeout=60)
        for _ in range(3):  # time passes in which the others would have started
            assert other.ran.acquire(timeout=60)
        assert workflow.numbers == [0]
        for _ in range(4):
            workflow.end.release()
            assert workflow.ended.acquire(timeout=60)

    assert (workflow.numbers, workflow.most) == ([0, 1, 2, 3], 1)


def test_several_fires_of_one_poll_run_at_the_same_time_where_the_trigger_allows_it() -> None:
    workflow = InTurn()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms", allow_concurrent=True)
    def inbox() -> Any:
        if workflow.numbers:
            return cloaca.TriggerResult.skip()
        return [cloaca.TriggerResult.fire({"number": n}, key=str(n)) for n in range(3)]

    with cloaca.DefaultRunner(":memory:"):
        for _ in range(3):
            assert workflow.started.acquire(timeout=60)
        workflow.end.release(3)

    assert (sorted(workflow.numbers), workflow.most) == ([0, 1, 2], 3)


async def test_fires_that_wait_when_their_process_is_killed_run_one_after_the_other_in_the_next(lasting: str) -> None:
    program = """
import sys, threading, cloaca
with cloaca.WorkflowBuilder("ingest"):
    @cloaca.task()
    def only(context):
        threading.Event().wait()
@cloaca.trigger(workflow="ingest", poll_interval="100ms")
def inbox():
    for number in range(3):
        yield cloaca.TriggerResult.fire({"number": number})
    print("yielded", flush=True)
with cloaca.DefaultRunner(sys.argv[1]):
    threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", program, lasting], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "yielded\n"
        process.kill()
    workflow = InTurn()

    @cloaca.trigger(workflow="ingest", poll_interval="1h")
    def inbox() -> Any:
        return cloaca.TriggerResult.skip()

    with cloaca.DefaultRunner(lasting):
        for _ in range(3):
            assert workflow.started.acquire(timeout=60)
            workflow.end.release()
            assert workflow.ended.acquire(timeout=60)

    assert (workflow.numbers, workflow.most) == ([0, 1, 2], 1)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_what_stands_after_a_yield_runs_once_the_run_is_in_the_store(lasting: str, is_async: bool) -> None:
    workflow, stored, through = Workflow(), [], threading.Event()

    def a_fire(number: int) -> Any:
        return cloaca.TriggerResult.fire({"number": number}, key=str(number))

    def inbox() -> Any:
        for number in range(3):
            yield a_fire(number)
            stored.append(asyncio.run(runs_in(lasting)))
        through.set()

    async def inbox_async() -> Any:
        for number in range(3):
            yield a_fire(number)
            stored.append(await runs_in(lasting))
        through.set()

    cloaca.trigger(workflow="ingest", name="inbox", poll_interval="1s")(inbox_async if is_async else inbox)
    with cloaca.DefaultRunner(lasting):
        assert through.wait(60)
        for _ in range(3):
            assert workflow.ran.acquire(timeout=60)

    assert stored[:3] == [1, 2, 3]
    assert [context["number"] for context in workflow.contexts] == [0, 1, 2]


def test_a_generator_runs_in_one_thread_from_its_first_line_to_its_last() -> None:
    Workflow()
    threads, done = [], threading.Event()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def inbox() -> Any:
        threads.append(threading.current_thread())
        yield cloaca.TriggerResult.fire()
        threads.append(threading.current_thread())
        done.set()

    with cloaca.DefaultRunner(":memory:"):
        assert done.wait(60)

    assert threads[0] is threads[1]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_generator_whose_fire_is_not_taken_does_not_go_on(caplog: pytest.LogCaptureFixture, is_async: bool) -> None:
    workflow, after, closed = Workflow(), [], threading.Event()

    def inbox() -> Any:
        try:
            yield "fire!"
            after.append(1)
        finally:
            closed.set()

    async def inbox_async() -> Any:
        try:
            yield "fire!"
            after.append(1)
        finally:
            closed.set()

    cloaca.trigger(workflow="ingest", name="inbox", poll_interval="1s")(inbox_async if is_async else inbox)
    with caplog.at_level(logging.WARNING, "cloaca"), cloaca.DefaultRunner(":memory:"):
        assert closed.wait(60)

    assert after == []
    assert workflow.contexts == []
