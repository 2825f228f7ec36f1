"""The tries of a task: when it is tried again, who hears of its end, and how long it may take."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import cloaca
from cloaca.engine.attempt import call
from cloaca.engine.crew import Crew
from cloaca.resources.phases import RunPhase
from tests.unit.engine.workflows import one


def returns_text(context: Any) -> Any:
    return "done"


# --- retries and callbacks


async def test_a_task_that_fails_is_tried_again_with_the_context_it_started_with(engine: Any) -> None:
    tries = []

    def flaky(context: Any) -> None:
        tries.append(context.to_dict())
        context["dirty"] = True
        if len(tries) < 3:
            raise OSError("not yet")

    ended = await engine.run(one(flaky, retry_attempts=5), {"given": 1})

    assert tries == [{"given": 1}] * 3
    assert ended.context == {"given": 1, "dirty": True}
    assert ended.tasks[0].attempts == 3


async def test_a_policy_that_is_used_up_fails_the_task(engine: Any) -> None:
    tries = []

    def broken(context: Any) -> None:
        tries.append(1)
        raise OSError(f"try {len(tries)}")

    ended = await engine.run(one(broken, retry_attempts=2))

    assert (len(tries), ended.tasks[0].attempts) == (3, 3)
    assert ended.message == "task 'only' failed: OSError: try 3"


@pytest.mark.parametrize(
    ("condition", "error", "tries"),
    [
        ("never", OSError("x"), 1),
        ("transient", ValueError("no column"), 1),
        ("transient", ConnectionResetError("peer"), 3),
        ("transient", RuntimeError("Service Unavailable"), 3),
        ("all", ValueError("no column"), 3),
    ],
)
async def test_the_condition_says_which_errors_are_tried_again(
    engine: Any, condition: str, error: Exception, tries: int
) -> None:
    made = []

    def failing(context: Any) -> None:
        made.append(1)
        raise error

    await engine.run(one(failing, retry_attempts=2, retry_condition=condition))

    assert len(made) == tries


async def test_a_result_that_cannot_be_kept_is_not_tried_again(engine: Any) -> None:
    ended = await engine.run(one(returns_text, retry_attempts=3))

    assert ended.tasks[0].attempts == 1


async def test_a_task_that_waits_for_its_next_try_leaves_its_slot_to_others(engine: Any) -> None:
    order = []

    async def flaky(context: Any) -> None:
        order.append("flaky")
        if len(order) == 1:
            raise OSError

    async def other(context: Any) -> None:
        order.append("other")

    with cloaca.WorkflowBuilder("w") as builder:
        cloaca.task(id="flaky", retry_delay_ms=30, retry_jitter=False)(flaky)
        cloaca.task(id="other")(other)

    await engine.run(builder.build(), slots=1)

    assert order == ["flaky", "other", "flaky"]


async def test_callbacks_hear_how_the_task_ended(engine: Any) -> None:
    heard: list[Any] = []

    def said(*arguments: Any) -> None:
        heard.append([a.to_dict() if isinstance(a, cloaca.Context) else a for a in arguments])

    with cloaca.WorkflowBuilder("w") as builder:
        cloaca.task(id="good", on_success=said)(lambda context: context.set("n", 1))
        cloaca.task(id="bad", on_failure=said, retry_attempts=1, retry_delay_ms=1)(lambda context: 1 / 0)

    await engine.run(builder.build())

    assert sorted(heard) == [
        ["bad", "ZeroDivisionError: division by zero", {}],
        ["good", {"n": 1}],
    ]


async def test_an_error_in_a_callback_is_logged_and_fails_nothing(
    engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def upset(task_id: str, context: Any) -> None:
        raise ValueError("upset")

    ended = await engine.run(one(lambda context: None, on_success=upset))

    assert ended.phase is RunPhase.COMPLETED
    assert caplog.messages == ["task 'only': its callback upset raised ValueError: upset"]


async def test_a_callback_may_be_async_and_cannot_change_the_result(engine: Any) -> None:
    heard = []

    async def meddling(task_id: str, context: Any) -> None:
        heard.append(task_id)
        context["rows"].append("mine")

    ended = await engine.run(one(lambda context: context.set("rows", []), on_success=meddling))

    assert (heard, ended.context) == (["only"], {"rows": []})


# --- time


async def test_a_call_that_is_over_before_its_thread_makes_it_calls_nothing() -> None:
    called: list[str] = []
    crew = Crew(1, busy=1)
    held, done = threading.Event(), threading.Event()
    crew.submit(lambda: held.wait(10) and None)
    loop = asyncio.get_running_loop()
    making = asyncio.create_task(call(lambda: called.append("called"), is_async=False, crew=crew))
    await asyncio.sleep(0)  # it is with the crew, whose one thread is held
    making.cancel()
    await asyncio.wait([making])
    held.set()
    crew.submit(done.set)
    assert await loop.run_in_executor(None, done.wait, 10)
    crew.shutdown()

    assert (making.cancelled(), called) == (True, [])


async def test_a_task_that_takes_too_long_fails_and_its_late_result_is_ignored(engine: Any) -> None:
    late = threading.Event()
    over = threading.Event()

    def slow(context: Any) -> Any:
        late.wait(10)
        context["late"] = True
        over.set()
        return context

    ended = await engine.run(one(slow, timeout_seconds=0.02))
    late.set()
    assert over.wait(10)
    await asyncio.sleep(0.02)

    assert ended.message == "task 'only' failed: TaskTimeout: it took longer than its 0.02 s"
    assert engine.written[-1] == ended


async def test_an_async_task_that_takes_too_long_is_cancelled(engine: Any) -> None:
    cancelled = asyncio.Event()

    async def slow(context: Any) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    ended = await engine.run(one(slow), timeout=0.02)
    await asyncio.wait_for(cancelled.wait(), 10)

    assert ended.phase is RunPhase.FAILED


async def test_a_time_out_counts_as_transient(engine: Any) -> None:
    tries = []

    async def slow_once(context: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            await asyncio.sleep(10)

    ended = await engine.run(one(slow_once, retry_attempts=1, retry_condition="transient", timeout_seconds=0.02))

    assert (ended.phase, len(tries)) == (RunPhase.COMPLETED, 2)
