"""Stopping a run, and going on with it in another process."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import cloaca
from cloaca.authoring.workflow import Workflow
from cloaca.engine.execute import StopReason
from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.resources.recorded import RecordedStatus, RecordedTask
from tests.unit.engine.workflows import diamond, one, phases

# --- stops


def waiting() -> tuple[Workflow, asyncio.Event]:
    """A workflow whose first task ends at once, the second says so and waits for ever, and the third follows it."""
    begun = asyncio.Event()
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task()
        async def done(context: Any) -> None:
            context["done"] = True

        @cloaca.task(dependencies=[done])
        async def endless(context: Any) -> None:
            begun.set()
            await asyncio.sleep(3600)

        @cloaca.task(dependencies=[endless])
        async def never(context: Any) -> None: ...

    return builder.build(), begun


@pytest.mark.parametrize(
    ("reason", "phase", "tasks", "message", "checkpoint"),
    [
        (
            StopReason.CANCELLED,
            RunPhase.CANCELLED,
            {"done": "Completed", "endless": "Cancelled", "never": "Cancelled"},
            "cancelled",
            {},
        ),
        (
            StopReason.DEADLINE,
            RunPhase.FAILED,
            {"done": "Completed", "endless": "Cancelled", "never": "Cancelled"},
            (
                "the run took longer than its deadline: if it may, raise activeDeadlineSeconds "
                "(pipeline_timeout_seconds of a DefaultRunner)"
            ),
            {},
        ),
        (
            StopReason.INTERRUPTED,
            RunPhase.PENDING,
            {"done": "Completed", "endless": "Pending", "never": "Pending"},
            None,
            {"done": {"done": True}},
        ),
    ],
    ids=lambda value: value.value if isinstance(value, StopReason) else "",
)
async def test_a_run_that_is_stopped_says_why_and_what_was_finished(
    engine: Any, reason: StopReason, phase: RunPhase, tasks: Any, message: Any, checkpoint: Any
) -> None:
    workflow, begun = waiting()
    running = asyncio.create_task(engine.run(workflow))
    await asyncio.wait_for(begun.wait(), 10)
    engine.stop.request(reason)
    ended = await asyncio.wait_for(running, 10)

    assert (ended.phase, phases(ended), ended.message, ended.checkpoint) == (phase, tasks, message, checkpoint)
    assert ended == engine.written[-1]


async def test_a_stop_does_not_wait_for_a_thread_that_hangs(engine: Any) -> None:
    begun, release = threading.Event(), threading.Event()

    def hangs(context: Any) -> None:
        begun.set()
        release.wait(10)

    running = asyncio.create_task(engine.run(one(hangs)))
    await asyncio.to_thread(begun.wait, 10)
    asked = time.monotonic()
    engine.stop.request(StopReason.CANCELLED)
    ended = await running
    waited = time.monotonic() - asked
    release.set()

    assert ended.phase is RunPhase.CANCELLED
    assert waited < 5


@pytest.mark.parametrize("cancel", ["before it began", "while it waits for a slot"])
async def test_a_run_that_is_cancelled_gives_its_slots_back(engine: Any, cancel: str) -> None:
    workflow, begun = waiting()
    slots = 1
    running = asyncio.create_task(engine.run(workflow, slots=slots))
    if cancel == "before it began":
        await asyncio.sleep(0)
    else:
        await asyncio.wait_for(begun.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert engine.slots.free == slots


# --- resuming


async def test_a_run_resumes_at_its_frontier(engine: Any) -> None:
    """What a process that was killed had recorded: one branch done, one task under way."""
    ran: list[str] = []
    with cloaca.WorkflowBuilder("w") as builder:
        for name, needs in (("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"])):
            cloaca.task(id=name, dependencies=needs)(
                lambda context, name=name: ran.append(name) or context.set(name, True)
            )
    recorded = RecordedStatus(
        phase=RunPhase.RUNNING,
        attempt=2,
        tasks=(
            RecordedTask(id="a", phase=TaskPhase.COMPLETED, attempts=1),
            RecordedTask(id="b", phase=TaskPhase.COMPLETED, attempts=1),
            RecordedTask(id="c", phase=TaskPhase.RUNNING, attempts=1),
            RecordedTask(id="d"),
        ),
        checkpoint={"a": {"a": True}, "b": {"a": True, "b": True}},
    )

    ended = await engine.run(builder.build(), recorded=recorded)

    assert ran == ["c", "d"]
    assert ended.context == dict.fromkeys("abcd", True)
    assert {task.id: task.attempts for task in ended.tasks} == {"a": 1, "b": 1, "c": 2, "d": 1}
    assert ended.attempt == 2


async def test_every_record_of_a_run_can_be_resumed_to_the_same_end(engine: Any) -> None:
    whole = await engine.run(diamond(), {"given": 1})
    records = list(engine.written)

    for record in records[:-1]:
        ended = await engine.run(diamond(), {"given": 1}, recorded=record)
        assert (ended.phase, ended.context) == (whole.phase, whole.context)


async def test_a_finished_run_that_is_looked_at_again_runs_nothing(engine: Any) -> None:
    ran = []
    recorded = RecordedStatus(
        phase=RunPhase.RUNNING,
        tasks=(RecordedTask(id="only", phase=TaskPhase.FAILED, attempts=1),),
        message="task 'only' failed: OSError",
    )

    ended = await engine.run(one(lambda context: ran.append(1)), recorded=recorded)

    assert (ran, ended.phase, ended.message) == ([], RunPhase.FAILED, "task 'only' failed: OSError")


async def test_a_journal_that_refuses_ends_the_run_where_it_is(engine: Any) -> None:
    workflow, begun = waiting()

    def refuse(status: RecordedStatus) -> None:
        if begun.is_set():
            raise OSError("disk full")
        engine.written.append(status)

    engine.write = refuse
    begun.set()
    with pytest.raises(OSError, match="disk full"):
        await engine.run(workflow)

    assert engine.written == []
    assert engine.slots.free == 4
