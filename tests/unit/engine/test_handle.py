"""TaskHandle: a task that waits for the world leaves its slot to others, and has it again when it goes on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import cloaca
from cloaca.resources.phases import RunPhase


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_task_that_defers_gives_up_its_slot_while_it_waits(engine: Any, kind: str) -> None:
    """With one slot, the other task can only run while the first one waits."""
    other_ran = threading.Event()
    held: dict[str, bool] = {}

    def condition(handle: Any) -> bool:
        held["during"] = handle.is_slot_held()
        return other_ran.is_set()

    with cloaca.WorkflowBuilder("w") as builder:
        if kind == "sync":

            @cloaca.task(id="waits")
            def waits(context: Any, handle: Any) -> None:
                held["before"] = handle.is_slot_held()
                handle.defer_until(lambda: condition(handle), poll_interval_ms=1)
                held["after"] = handle.is_slot_held()
        else:

            @cloaca.task(id="waits")
            async def waits_too(context: Any, task_handle: Any) -> None:
                held["before"] = task_handle.is_slot_held()
                await task_handle.defer_until(lambda: condition(task_handle), poll_interval_ms=1)
                held["after"] = task_handle.is_slot_held()

        @cloaca.task(id="other")
        def other(context: Any) -> None:
            other_ran.set()

    ended = await asyncio.wait_for(engine.run(builder.build(), slots=1), 10)

    assert ended.phase is RunPhase.COMPLETED
    assert held == {"before": True, "during": False, "after": True}
    assert engine.slots.free == 1


async def test_a_condition_may_be_async_in_an_async_task(engine: Any) -> None:
    asked = []

    async def third_time() -> bool:
        asked.append(1)
        return len(asked) == 3

    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task()
        async def waits(context: Any, handle: Any) -> None:
            await handle.defer_until(third_time, poll_interval_ms=1)

    ended = await engine.run(builder.build())

    assert (ended.phase, len(asked)) == (RunPhase.COMPLETED, 3)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_condition_that_raises_fails_the_task_and_loses_no_slot(engine: Any, kind: str) -> None:
    asked = []

    def condition() -> bool:
        asked.append(1)
        if len(asked) == 2:
            raise OSError("gone")
        return False

    def waits(context: Any, handle: Any) -> Any:
        handle.defer_until(condition, poll_interval_ms=1)

    async def waits_async(context: Any, handle: Any) -> Any:
        await handle.defer_until(condition, poll_interval_ms=1)

    with cloaca.WorkflowBuilder("w") as builder:
        cloaca.task(id="waits", retry_attempts=0)(waits if kind == "sync" else waits_async)

    ended = await engine.run(builder.build(), slots=1)

    assert ended.message == "task 'waits' failed: OSError: gone"
    assert engine.slots.free == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_task_whose_time_is_over_while_it_waits_takes_no_slot_any_more(engine: Any, kind: str) -> None:
    left = threading.Event()

    def waits(context: Any, handle: Any) -> None:
        try:
            handle.defer_until(lambda: False, poll_interval_ms=1)
        finally:
            left.set()

    async def waits_async(context: Any, handle: Any) -> None:
        try:
            await handle.defer_until(lambda: False, poll_interval_ms=1)
        finally:
            left.set()

    with cloaca.WorkflowBuilder("w") as builder:
        cloaca.task(id="waits", retry_attempts=0, timeout_seconds=0.03)(waits if kind == "sync" else waits_async)

    ended = await engine.run(builder.build(), slots=1)

    assert await asyncio.to_thread(left.wait, 10)
    assert ended.message == "task 'waits' failed: TaskTimeout: it took longer than its 0.03 s"
    assert engine.slots.free == 1


@pytest.mark.parametrize(
    ("condition", "interval", "error"),
    [(True, 10, TypeError), (lambda: True, 0, ValueError), (lambda: True, -5, ValueError)],
    ids=["no function", "no interval", "negative"],
)
async def test_defer_until_refuses_what_it_cannot_wait_for(
    engine: Any, condition: Any, interval: int, error: type[Exception]
) -> None:
    raised = []

    def waits(context: Any, handle: Any) -> None:
        try:
            handle.defer_until(condition, poll_interval_ms=interval)
        except Exception as refusal:
            raised.append(type(refusal))

    with cloaca.WorkflowBuilder("w") as builder:
        cloaca.task(id="waits")(waits)
    await engine.run(builder.build())

    assert raised == [error]
