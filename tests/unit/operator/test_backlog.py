"""The queue of a trigger's runs: a few of them decide as all would, and a look costs the same at any length."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cloacina_operator.core.backlog import SHOWN, Backlog, Fired, Turn
from cloacina_operator.core.plan import StartRun
from cloacina_operator.core.runs import ObservedRun, Sibling, plan
from cloacina_operator.shell.index import Index
from hypothesis import given
from hypothesis import strategies as st

from cloaca.resources import ConcurrencyPolicy, ObjectMeta, RunPhase, WorkflowRun
from cloaca.resources.run import RunSpec, TriggerReference
from cloaca.resources.trigger import PackageReference
from cloaca.store.base import Change
from cloaca.store.sql.store import SqlStore

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
FIRED = Fired(namespace="default", trigger_uid="t", package="demo")
OTHER = Fired(namespace="default", trigger_uid="t", package="other")


def turn(number: int) -> Turn:
    return Turn(created=NOW + timedelta(seconds=number // 3), name=f"run-{number:05}")  # three in each second


@given(
    waiting=st.sets(st.integers(0, 30), min_size=1),
    started=st.sets(st.integers(0, 30)),
    this=st.integers(0, 30),
    policy=st.sampled_from([ConcurrencyPolicy.FORBID, ConcurrencyPolicy.REPLACE]),
)
def test_the_few_that_are_shown_decide_as_all_of_them_would(
    waiting: set[int], started: set[int], this: int, policy: ConcurrencyPolicy
) -> None:
    backlog = Backlog()
    for number in (waiting | started | {this}) - {this}:
        backlog.add(FIRED, turn(number))
    backlog.add(FIRED, turn(this))
    for number in started - {this}:
        backlog.mark(FIRED, turn(number))
    everybody = [turn(number) for number in (waiting | started) - {this}]

    def starts(others: Any) -> bool:
        names = {turn(number).name for number in started}
        siblings = tuple(Sibling(name=it.name, created=it.created, started=it.name in names) for it in others)
        run = WorkflowRun(
            metadata=ObjectMeta(name=turn(this).name, creation_timestamp=turn(this).created),
            spec=RunSpec(workflow="w", package_ref=PackageReference(name="demo")),
        )
        decided = plan(ObservedRun(run=run, digest="d", policy=policy, siblings=siblings, now=NOW))
        return any(isinstance(action, StartRun) for action in decided.actions)

    assert starts(backlog.others(FIRED, turn(this))) is starts(everybody)


def test_a_run_of_another_package_that_names_the_trigger_stands_in_no_queue_of_it() -> None:
    backlog = Backlog()
    backlog.add(OTHER, turn(0))
    backlog.add(FIRED, turn(1))
    assert backlog.others(FIRED, turn(1)) == ()


def test_one_that_ended_is_forgotten_and_the_next_is_told() -> None:
    backlog = Backlog()
    for number in range(9):
        backlog.add(FIRED, turn(number))
        backlog.add(FIRED, turn(number))
    backlog.mark(FIRED, turn(0))
    backlog.remove(FIRED, turn(0))
    assert backlog.next_after(FIRED, turn(0)) == (turn(1),)
    assert (backlog.names(FIRED, 2), backlog.count(FIRED)) == ((turn(1).name, turn(2).name), 8)
    assert backlog.others(FIRED, turn(8)) == (*(turn(it) for it in range(1, 1 + SHOWN)), turn(5), turn(6), turn(7))
    for number in range(9):
        backlog.remove(FIRED, turn(number))
    assert (backlog.count(FIRED), backlog.others(FIRED, turn(1))) == (0, ())


def steps(work: Callable[[], object]) -> int:
    """How many lines of Python ``work`` executes: a measure that does not depend on the machine."""
    count = 0

    def trace(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("length", [100, 3_000])
async def test_the_end_of_a_run_costs_the_same_however_many_wait(length: int) -> None:
    store = await SqlStore.open(":memory:")
    by = TriggerReference(name="watch", uid="t")
    spec = RunSpec(workflow="w", package_ref=PackageReference(name="demo"), trigger_ref=by)
    runs = [
        await store.create(WorkflowRun(metadata=ObjectMeta(name=turn(number).name), spec=spec))
        for number in range(length)
    ]
    index = Index(store)
    await index.load()
    await store.write_status(runs[0].with_status(phase=RunPhase.COMPLETED))
    affected = await index.saw(Change(ref=runs[0].ref))
    assert [ref.name for ref in affected] == [runs[0].name, runs[1].name, "watch"]
    assert steps(lambda: index.siblings(runs[1])) < 200
    assert steps(lambda: index._saw_run(runs[1].ref, runs[1].with_status(phase=RunPhase.COMPLETED))) < 200
    await store.close()
