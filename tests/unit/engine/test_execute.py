"""One run: order, parallelism, failures, retries, limits, stops, as an author and the record see them."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

import pytest

import cloaca
from cloaca.authoring.workflow import Workflow
from cloaca.engine.execute import StopReason
from cloaca.resources.run import RunPhase, RunStatus, TaskPhase, TaskStatus


def phases(status: RunStatus) -> dict[str, str]:
    return {task.id: task.phase.value for task in status.tasks}


def one(function: Any, **arguments: Any) -> Workflow:
    """A workflow of one task ``only``, tried once unless the arguments say otherwise."""
    with cloaca.WorkflowBuilder("w") as builder:
        cloaca.task(id="only", **{"retry_attempts": 0, "retry_delay_ms": 1, **arguments})(function)
    return builder.build()


def diamond() -> Workflow:
    with cloaca.WorkflowBuilder("diamond") as builder:

        @cloaca.task()
        def top(context: Any) -> Any:
            context["path"] = ["top"]
            return context

        @cloaca.task(dependencies=["top"])
        def left(context: Any) -> Any:
            context["path"] = [*context["path"], "left"]
            context["winner"] = "left"

        @cloaca.task(dependencies=["top"])
        async def right(context: Any) -> Any:
            context["path"] = [*context["path"], "right"]
            context["winner"] = "right"

        @cloaca.task(dependencies=[left, right])
        def bottom(context: Any) -> Any:
            context["path"] = [*context["path"], "bottom"]

    return builder.build()


# --- the way through


async def test_contexts_flow_from_the_run_through_the_tasks_to_the_result(engine: Any) -> None:
    ended = await engine.run(diamond(), {"given": 1})

    assert ended.phase is RunPhase.COMPLETED
    assert ended.context == {"given": 1, "path": ["top", "left", "right", "bottom"], "winner": "right"}
    assert phases(ended) == dict.fromkeys(("top", "left", "right", "bottom"), "Completed")
    assert ended.message is None
    assert ended.checkpoint == {}
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended == engine.written[-1]


async def test_the_merge_takes_dependencies_in_the_order_in_which_the_task_names_them(engine: Any) -> None:
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task()
        async def quick(context: Any) -> None:
            context["winner"] = "quick"

        @cloaca.task()
        async def slow(context: Any) -> None:
            await asyncio.sleep(0.05)
            context["winner"] = "slow"

        @cloaca.task(dependencies=["slow", "quick"])
        async def last(context: Any) -> None:
            context["saw"] = context["winner"]

    ended = await engine.run(builder.build())

    assert ended.context == {"winner": "quick", "saw": "quick"}


async def test_a_run_of_two_tasks_in_a_row_is_recorded_three_times(engine: Any) -> None:
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task()
        def first(context: Any) -> None:
            context["n"] = 1

        @cloaca.task(dependencies=[first])
        def second(context: Any) -> None:
            context["n"] += 1

    await engine.run(builder.build())

    assert [(s.phase.value, phases(s), s.checkpoint, s.context) for s in engine.written] == [
        ("Running", {"first": "Running", "second": "Pending"}, {}, None),
        ("Running", {"first": "Completed", "second": "Running"}, {"first": {"n": 1}}, None),
        ("Completed", {"first": "Completed", "second": "Completed"}, {}, {"n": 2}),
    ]


async def test_a_task_starts_only_when_what_it_builds_on_is_recorded(engine: Any) -> None:
    recorded_before_second: list[Any] = []
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task()
        async def first(context: Any) -> None: ...

        @cloaca.task(dependencies=[first])
        async def second(context: Any) -> None:
            recorded_before_second.append(engine.seen("first")[-1])

    await engine.run(builder.build())

    assert recorded_before_second == [TaskPhase.COMPLETED]


async def test_tasks_without_a_path_between_them_run_at_the_same_time(engine: Any) -> None:
    together = threading.Barrier(3, timeout=10)

    def meet(context: Any) -> None:
        together.wait()

    with cloaca.WorkflowBuilder("w") as builder:
        for name in "abc":
            cloaca.task(id=name, retry_attempts=0)(meet)

    ended = await engine.run(builder.build())

    assert ended.phase is RunPhase.COMPLETED


async def test_no_more_tasks_run_at_once_than_there_are_slots(engine: Any) -> None:
    now, most = [], []

    async def counted(context: Any) -> None:
        now.append(1)
        most.append(len(now))
        await asyncio.sleep(0.002)
        now.pop()

    with cloaca.WorkflowBuilder("w") as builder:
        for number in range(20):
            cloaca.task(id=f"t{number}")(counted)

    ended = await engine.run(builder.build(), slots=3)

    assert ended.phase is RunPhase.COMPLETED
    assert max(most) == 3


async def test_a_blocking_task_does_not_delay_an_async_one(engine: Any) -> None:
    over = threading.Event()
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task()
        def blocking(context: Any) -> None:
            assert over.wait(10)

        @cloaca.task()
        async def ticking(context: Any) -> None:
            for _ in range(5):
                await asyncio.sleep(0.001)
            over.set()

    ended = await engine.run(builder.build())

    assert ended.phase is RunPhase.COMPLETED


async def test_a_wide_fan_is_recorded_in_few_writes(engine: Any) -> None:
    with cloaca.WorkflowBuilder("fan") as builder:
        cloaca.task(id="root")(lambda context: None)
        for number in range(100):
            cloaca.task(id=f"t{number}", dependencies=["root"])(lambda context: None)
        cloaca.task(id="end", dependencies=[f"t{number}" for number in range(100)])(lambda context: None)

    ended = await engine.run(builder.build())

    assert ended.phase is RunPhase.COMPLETED
    assert len(engine.written) < 80


async def test_a_task_behind_a_sync_decorator_may_be_async(engine: Any) -> None:
    async def inner(context: Any) -> None:
        await asyncio.sleep(0)
        context["ran"] = True

    ended = await engine.run(one(lambda context: inner(context)))

    assert ended.context == {"ran": True}


async def test_what_a_task_does_to_its_context_does_not_reach_tasks_beside_it(engine: Any) -> None:
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task()
        async def root(context: Any) -> None: ...

        @cloaca.task(dependencies=["root"])
        async def greedy(context: Any) -> None:
            context["shared"]["items"].append("mine")

        @cloaca.task(dependencies=["greedy"])
        async def after(context: Any) -> None: ...

        @cloaca.task(dependencies=["root"])
        async def beside(context: Any) -> None:
            await asyncio.sleep(0.02)
            context["saw"] = list(context["shared"]["items"])

    given = {"shared": {"items": []}}
    ended = await engine.run(builder.build(), given)

    assert ended.context == {"shared": {"items": ["mine"]}, "saw": []}
    assert given == {"shared": {"items": []}}


# --- failures


async def test_dependents_of_a_failed_task_are_skipped_and_the_others_go_on(engine: Any) -> None:
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task(retry_attempts=0)
        def bad(context: Any) -> None:
            raise ValueError("no such column: amount")

        @cloaca.task(dependencies=[bad])
        def child(context: Any) -> None: ...

        @cloaca.task(dependencies=[child])
        def grandchild(context: Any) -> None: ...

        @cloaca.task()
        async def good(context: Any) -> None:
            await asyncio.sleep(0.02)

        @cloaca.task(dependencies=[good])
        def after_good(context: Any) -> None: ...

    ended = await engine.run(builder.build())

    assert ended.phase is RunPhase.FAILED
    assert phases(ended) == {
        "bad": "Failed",
        "child": "Skipped",
        "grandchild": "Skipped",
        "good": "Completed",
        "after_good": "Completed",
    }
    assert ended.message == "task 'bad' failed: ValueError: no such column: amount"
    assert ended.traceback is not None
    assert 'raise ValueError("no such column: amount")' in ended.traceback
    assert "cloaca/engine" not in ended.traceback
    assert ended.context is None


async def raises_key_error(context: Any) -> None:
    raise KeyError("amount")


async def exits(context: Any) -> None:
    raise SystemExit(3)


def exits_in_its_thread(context: Any) -> None:
    raise SystemExit("enough")


def interrupts(context: Any) -> None:
    raise KeyboardInterrupt


async def cancels_itself(context: Any) -> None:
    raise asyncio.CancelledError


def returns_text(context: Any) -> Any:
    return "done"


def returns_a_dict(context: Any) -> Any:
    return {"rows": 1}


def sets_an_object(context: Any) -> None:
    context["made"] = object()


def hides_an_object(context: Any) -> None:
    context["rows"] = []
    context["rows"].append(object())


def sets_nan(context: Any) -> None:
    context["mean"] = math.nan


def hides_infinity(context: Any) -> None:
    context["means"] = []
    context["means"].append(math.inf)


def fills_the_context(context: Any) -> None:
    context["small"] = 1
    context["rows"] = "x" * 300_000


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises_key_error, "KeyError: 'amount'"),
        (exits, "RuntimeError: SystemExit(3)"),
        (exits_in_its_thread, "RuntimeError: SystemExit(enough)"),
        (interrupts, "RuntimeError: KeyboardInterrupt()"),
        (cancels_itself, "RuntimeError: CancelledError()"),
        (returns_text, "TaskResultError: the task returned str; return the context, or nothing after changing it"),
        (returns_a_dict, "TaskResultError: the task returned dict; return the context, or nothing after changing it"),
        (
            sets_an_object,
            (
                "ContextError: context value 'made' is of type builtins.object, which JSON cannot hold: "
                "store text, numbers, booleans, None, lists or dicts of those"
            ),
        ),
        (
            hides_an_object,
            (
                "ContextError: context['rows'][0] is of type builtins.object, which JSON cannot hold: "
                "store text, numbers, booleans, None, lists or dicts of those"
            ),
        ),
        (sets_nan, "ContextError: context value 'mean' is nan: JSON has no such number; use None or a string"),
        (hides_infinity, "ContextError: context['means'][0] is inf: JSON has no such number; use None or a string"),
        (
            fills_the_context,
            (
                "ContextError: the context is 300,021 bytes as JSON, over the limit of 262,144 (largest key: 'rows'): "
                "store the data elsewhere and keep a reference to it in the context"
            ),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_task_that_goes_wrong_fails_its_run_and_says_how(engine: Any, function: Any, message: str) -> None:
    ended = await engine.run(one(function))

    assert (ended.phase, ended.message) == (RunPhase.FAILED, f"task 'only' failed: {message}")


async def test_leaves_that_are_too_large_together_fail_the_run(engine: Any) -> None:
    with cloaca.WorkflowBuilder("w") as builder:
        for name in ("a", "b"):
            cloaca.task(id=name)(lambda context, name=name: context.set(name, "x" * 60))

    ended = await engine.run(builder.build(), limit=100)

    assert ended.phase is RunPhase.FAILED
    assert ended.context is None
    assert ended.message is not None
    assert ended.message.startswith("the leaves of workflow 'w' together: the context is 135 bytes as JSON")


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
            "the run took longer than its deadline: if it may, raise activeDeadlineSeconds "
            "(pipeline_timeout_seconds of a DefaultRunner)",
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

    assert engine.slots._value == slots


# --- resuming


async def test_a_run_resumes_at_its_frontier(engine: Any) -> None:
    """What a process that was killed had recorded: one branch done, one task under way."""
    ran: list[str] = []
    with cloaca.WorkflowBuilder("w") as builder:
        for name, needs in (("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"])):
            cloaca.task(id=name, dependencies=needs)(
                lambda context, name=name: ran.append(name) or context.set(name, True)
            )
    recorded = RunStatus(
        phase=RunPhase.RUNNING,
        attempt=2,
        tasks=(
            TaskStatus(id="a", phase=TaskPhase.COMPLETED, attempts=1),
            TaskStatus(id="b", phase=TaskPhase.COMPLETED, attempts=1),
            TaskStatus(id="c", phase=TaskPhase.RUNNING, attempts=1),
            TaskStatus(id="d"),
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
    recorded = RunStatus(
        phase=RunPhase.RUNNING,
        tasks=(TaskStatus(id="only", phase=TaskPhase.FAILED, attempts=1),),
        message="task 'only' failed: OSError",
    )

    ended = await engine.run(one(lambda context: ran.append(1)), recorded=recorded)

    assert (ran, ended.phase, ended.message) == ([], RunPhase.FAILED, "task 'only' failed: OSError")


async def test_a_journal_that_refuses_ends_the_run_where_it_is(engine: Any) -> None:
    workflow, begun = waiting()

    async def refuse(status: RunStatus) -> None:
        if begun.is_set():
            raise OSError("disk full")
        engine.written.append(status)

    engine.write = refuse
    begun.set()
    with pytest.raises(OSError, match="disk full"):
        await engine.run(workflow)

    assert engine.written == []
    assert engine.slots._value == 4
