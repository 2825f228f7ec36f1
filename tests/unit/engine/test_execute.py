"""One run: order, parallelism and failures, as an author and the record see them."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import pytest

import cloaca
from cloaca.resources.phases import RunPhase, TaskPhase
from tests.unit.engine.workflows import diamond, one, phases

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
        (exits, "SystemExit: 3"),
        (exits_in_its_thread, "SystemExit: enough"),
        (interrupts, "KeyboardInterrupt"),
        (cancels_itself, "CancelledError"),
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
