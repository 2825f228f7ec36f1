"""Where a run stands: what is ready, what is still needed, what a later process finds."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cloaca.engine.merge import merge
from cloaca.engine.plan import Plan
from cloaca.engine.progress import Progress
from cloaca.engine.record import Kept
from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.resources.recorded import RecordedStatus, RecordedTask, read_status

NOW = datetime(2026, 3, 28, 9, tzinfo=timezone.utc)
LATER = datetime(2026, 3, 28, 10, tzinfo=timezone.utc)

Graph = dict[str, list[str]]

DIAMOND: Graph = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


@st.composite
def graphs(draw: Any) -> Graph:
    """Acyclic graphs of up to eight tasks, in any order of definition."""
    size = draw(st.integers(1, 8))
    needs = {
        f"t{n}": draw(st.lists(st.sampled_from([f"t{m}" for m in range(n)]), unique=True, max_size=3)) if n else []
        for n in range(size)
    }
    return {task: needs[task] for task in draw(st.permutations(list(needs)))}


def phases(status: RecordedStatus) -> dict[str, TaskPhase]:
    return {task.id: task.phase for task in status.tasks}


def complete(progress: Progress, task: str) -> None:
    progress.started(task, NOW)
    progress.completed(task, Kept({**progress.input_of(task), task: True}), NOW)


def test_a_task_is_ready_when_all_that_it_needs_has_completed() -> None:
    progress = Progress(Plan(DIAMOND), {}, RecordedStatus())

    assert progress.take_ready() == ["a"]
    complete(progress, "a")
    assert progress.take_ready() == ["b", "c"]
    complete(progress, "b")
    assert progress.take_ready() == []
    complete(progress, "c")
    assert progress.take_ready() == ["d"]
    complete(progress, "d")
    assert progress.finished
    assert progress.final_context().data == {"a": True, "b": True, "c": True, "d": True}


def test_a_run_starts_when_it_is_first_recorded_whatever_is_recorded_later() -> None:
    progress = Progress(Plan(DIAMOND), {}, RecordedStatus())
    first = progress.record(phase=RunPhase.RUNNING, now=NOW).status
    complete(progress, "a")
    second = progress.record(phase=RunPhase.RUNNING, now=LATER).status
    assert (first.started_at, second.started_at) == (NOW, NOW)
    resumed = Progress(Plan(DIAMOND), {}, second)
    assert resumed.record(phase=RunPhase.RUNNING, now=LATER).status.started_at == NOW


def test_the_checkpoint_holds_only_what_is_still_needed() -> None:
    progress = Progress(Plan({**DIAMOND, "leaf": ["a"]}), {}, RecordedStatus())
    kept = []
    for task in ("a", "b", "c", "leaf", "d"):
        complete(progress, task)
        kept.append(sorted(progress.record(phase=RunPhase.RUNNING, now=NOW).status.checkpoint))

    assert kept == [["a"], ["a", "b"], ["a", "b", "c"], ["b", "c", "leaf"], ["d", "leaf"]]


def test_the_context_of_a_task_whose_dependents_are_all_skipped_is_let_go() -> None:
    progress = Progress(Plan({"good": [], "bad": [], "both": ["good", "bad"]}), {}, RecordedStatus())
    progress.gave_up("bad", "OSError", None, NOW)
    complete(progress, "good")

    status = progress.record(phase=RunPhase.RUNNING, now=NOW).status

    assert status.checkpoint == {}
    assert phases(status)["both"] is TaskPhase.SKIPPED


def test_tasks_are_listed_in_topological_order_whatever_the_order_of_definition() -> None:
    progress = Progress(Plan({"last": ["middle"], "middle": ["first"], "first": []}), {}, RecordedStatus())

    assert [task.id for task in progress.record(phase=RunPhase.RUNNING, now=NOW).status.tasks] == [
        "first",
        "middle",
        "last",
    ]


def test_the_start_of_a_task_is_that_of_its_first_try() -> None:
    progress = Progress(Plan({"a": []}), {}, RecordedStatus())
    progress.started("a", NOW)
    progress.started("a", LATER)

    assert progress.record(phase=RunPhase.RUNNING, now=LATER).status.tasks[0] == RecordedTask(
        id="a", phase=TaskPhase.RUNNING, attempts=2, started_at=NOW
    )


def test_the_first_failure_is_the_one_that_the_run_tells() -> None:
    progress = Progress(Plan({"a": [], "b": []}), {}, RecordedStatus())
    progress.gave_up("b", "OSError: first", "traceback of b", NOW)
    progress.gave_up("a", "OSError: second", "traceback of a", NOW)

    status = progress.record(phase=RunPhase.FAILED, now=NOW).status

    assert (status.message, status.traceback) == ("task 'b' failed: OSError: first", "traceback of b")


def test_a_message_without_end_is_cut_at_its_beginning() -> None:
    progress = Progress(Plan({"a": []}), {}, RecordedStatus())
    progress.gave_up("a", "x" * 10_000 + "the end", None, NOW)

    message = progress.record(phase=RunPhase.FAILED, now=NOW).status.message

    assert message is not None
    assert message.startswith("task 'a' failed: xxx")
    assert " … (10,007 characters in all) … " in message
    assert message.endswith("the end")


def test_a_completed_task_runs_again_where_the_code_now_needs_a_context_that_was_let_go() -> None:
    recorded = RecordedStatus(
        tasks=(
            RecordedTask(id="a", phase=TaskPhase.COMPLETED, attempts=1),
            RecordedTask(id="b", phase=TaskPhase.COMPLETED, attempts=1),
        ),
        checkpoint={"b": {"b": True}},
    )
    progress = Progress(Plan({"a": [], "b": ["a"], "new": ["a", "b"]}), {}, recorded)

    assert progress.take_ready() == ["a"]
    complete(progress, "a")
    assert progress.take_ready() == ["new"]


def test_a_task_that_the_code_has_added_behind_a_failed_one_is_skipped() -> None:
    recorded = RecordedStatus(tasks=(RecordedTask(id="a", phase=TaskPhase.FAILED, finished_at=NOW),), message="why")
    progress = Progress(Plan({"a": [], "new": ["a"]}), {}, recorded)

    assert progress.finished
    assert phases(progress.record(phase=RunPhase.FAILED, now=LATER).status) == {
        "a": TaskPhase.FAILED,
        "new": TaskPhase.SKIPPED,
    }


@given(graphs(), st.data())
def test_a_run_ends_the_same_however_often_its_process_is_exchanged(graph: Graph, data: Any) -> None:
    """Tasks end in any order, some fail, and after any of them another process may take over from the record."""
    failing = data.draw(st.sets(st.sampled_from(sorted(graph))))
    progress = Progress(Plan(graph), {"given": 1}, RecordedStatus())
    under_way: list[str] = []
    ran: list[str] = []
    while True:
        under_way += progress.take_ready()
        if not under_way:
            break
        task = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        ran.append(task)
        if task in failing:
            progress.started(task, NOW)
            progress.gave_up(task, "no", None, NOW)
        else:
            complete(progress, task)
        if data.draw(st.booleans()):
            recorded = read_status(json.loads(progress.record(phase=RunPhase.RUNNING, now=NOW).text()))
            progress, under_way = Progress(Plan(graph), {"given": 1}, recorded), []

    doomed = _doomed(graph, failing)
    leaves = [task for task in graph if not any(task in needs for needs in graph.values())]
    assert progress.finished
    assert progress.failed is bool(failing & set(ran))
    assert sorted(ran) == sorted(set(graph) - doomed)
    assert phases(progress.record(phase=RunPhase.RUNNING, now=NOW).status) == {
        task: TaskPhase.SKIPPED if task in doomed else TaskPhase.FAILED if task in failing else TaskPhase.COMPLETED
        for task in graph
    }
    if not failing & set(ran):
        assert progress.final_context().data == merge(_expected(graph, leaf) for leaf in leaves)


def _doomed(graph: Graph, failing: set[str]) -> set[str]:
    """The tasks with a failing one among those they depend on, however far."""
    return {task for task in graph if _all_needs(graph, task) & failing}


def _all_needs(graph: Graph, task: str) -> set[str]:
    return {found for needed in graph[task] for found in (needed, *_all_needs(graph, needed))}


def _expected(graph: Graph, task: str) -> dict[str, Any]:
    inputs = [_expected(graph, needed) for needed in graph[task]] or [{"given": 1}]
    return {**merge(inputs), task: True}
