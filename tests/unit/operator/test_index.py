"""What is known of other objects, and who is looked at when something changes."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cloacina_operator.shell.index import Index

from cloaca.resources import CloacinaPackage, ObjectMeta, Ref, RunPhase, RunSpec, WorkflowRun
from cloaca.resources.package import PackageSource, PackageSpec
from cloaca.resources.run import RunStatus
from cloaca.resources.trigger import PackageReference
from cloaca.store.base import Change
from cloaca.store.sql.store import SqlStore


def run(name: str, **status: Any) -> WorkflowRun:
    spec = RunSpec(workflow="demo", package_ref=PackageReference(name="demo"))
    return WorkflowRun(metadata=ObjectMeta(name=name), spec=spec, status=RunStatus(**status))


NOON = datetime(2026, 3, 28, 12, tzinfo=timezone.utc)
RUNNING = RunStatus(phase=RunPhase.RUNNING, attempt=1)


async def test_a_run_that_begins_while_everything_is_read_is_known_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqlStore.open(":memory:")
    index = Index(store)
    runs_read, go_on, each = asyncio.Event(), asyncio.Event(), store.each

    async def slow(kind: type[Any], *where: Any) -> Any:
        answer = await each(kind, *where)
        runs_read.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(store, "each", slow)
    looking = asyncio.ensure_future(index.load())
    await runs_read.wait()
    late = await store.create(run("late"))
    hearing = asyncio.ensure_future(index.saw(Change(ref=late.ref)))
    await asyncio.wait([hearing], timeout=0.05)  # it may be heard now, or when everything was read
    go_on.set()
    await looking
    assert late.ref in await hearing
    assert index.count_unfinished() == 1
    await store.close()


async def test_a_package_that_went_while_nobody_followed_is_gone_until_it_is_made_again() -> None:
    store = await SqlStore.open(":memory:")
    source = PackageSource(url="https://example.com/demo.cloacina")
    package = CloacinaPackage(metadata=ObjectMeta(name="demo"), spec=PackageSpec(source=source))
    ref = package.ref
    index = Index(store)
    said = [(index.expects(ref), index.is_gone(ref))]
    await store.create(package)
    await index.load()
    said.append((index.expects(ref), index.is_gone(ref)))
    await store.delete(ref)
    assert ref in await index.load()
    said.append((index.expects(ref), index.is_gone(ref)))
    await store.create(package)
    await index.saw(Change(ref=ref))
    said.append((index.expects(ref), index.is_gone(ref)))
    assert said == [(False, False), (True, False), (False, True), (True, False)]
    await store.close()


async def test_the_name_of_a_package_that_went_is_forgotten_once_everything_was_looked_at_twice() -> None:
    store = await SqlStore.open(":memory:")
    index = Index(store)
    source = PackageSpec(source=PackageSource(url="https://example.com/demo.cloacina"))
    unheard, heard = [CloacinaPackage(metadata=ObjectMeta(name=name), spec=source) for name in ("unheard", "heard")]
    await store.create(unheard)
    await store.create(heard)
    await index.load()
    await store.delete(unheard.ref)
    await store.delete(heard.ref)
    await index.saw(Change(ref=heard.ref, deleted=True))
    looks = [(await index.load(), index.is_gone(unheard.ref), index.is_gone(heard.ref)) for _ in range(3)]
    assert looks == [([heard.ref, unheard.ref], True, False), ([unheard.ref], False, False), ([], False, False)]
    await store.close()


async def test_a_look_at_thousands_of_finished_runs_does_not_hold_them_all_at_once() -> None:
    store = await SqlStore.open(":memory:")
    for number in range(2_000):
        await store.create(run(f"run-{number}", phase=RunPhase.COMPLETED, attempt=1, context={"done": True}))
    a_look, a_list = await room(Index(store).load), await room(lambda: store.list(WorkflowRun))
    assert a_look < a_list / 2
    await store.close()


async def room(work: Callable[[], Awaitable[object]]) -> int:
    """Bytes that ``work`` took at its worst."""
    gc.collect()
    tracemalloc.start()
    try:
        await work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_progress_of_a_run_has_nobody_else_looked_at() -> None:
    store = await SqlStore.open(":memory:")
    first = await store.create(run("first", phase=RunPhase.RUNNING, attempt=1))
    await store.create(run("second"))
    index = Index(store)
    await index.load()
    await store.write_status(
        first.model_copy(update={"status": RunStatus(phase=RunPhase.RUNNING, attempt=1, message="on it")})
    )
    assert await index.saw(Change(ref=first.ref)) == [Ref(WorkflowRun.KIND, "default", "first")]
    assert (index.count_running(), index.count_unfinished()) == (1, 2)
    await store.close()


class _Behind:
    """A store whose first answer is older than the change that was told."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.each = store.each
        self._asked = 0

    async def get(self, *wanted: Any) -> Any:
        self._asked += 1
        return None if self._asked == 1 else await self._store.get(*wanted)


async def test_a_new_run_is_not_overlooked_for_an_answer_that_is_older_than_the_change() -> None:
    store = await SqlStore.open(":memory:")
    index = Index(_Behind(store))  # type: ignore[arg-type]  # all that an index asks of a store
    await index.load()
    made = await store.create(run("made"))
    await index.saw(Change(ref=made.ref))
    assert index.count_unfinished() == 1
    await store.close()


def ended(name: str, at: datetime) -> WorkflowRun:
    return run(name, phase=RunPhase.COMPLETED, attempt=1, finished_at=at)


async def test_each_run_that_ends_is_passed_on_once_however_it_is_seen_first() -> None:
    store = await SqlStore.open(":memory:")
    passed_on: list[str] = []
    index = Index(store, lambda ended: passed_on.append(ended.name), counted_until=NOON)
    await store.create(ended("counted-before", NOON))
    await store.create(ended("while-nobody-looked", NOON + timedelta(seconds=1)))
    going = [await store.create(run(name, **dict(RUNNING))) for name in ("seen-to-the-end", "end-missed", "deleted")]
    await index.load()
    assert passed_on == ["while-nobody-looked"]
    done = RUNNING.model_copy(update={"phase": RunPhase.FAILED})
    for unended in going[:2]:
        await store.write_status(unended.model_copy(update={"status": done}))
    await store.delete(going[2].ref)
    await index.saw(Change(ref=going[0].ref))
    await index.saw(Change(ref=going[2].ref, deleted=True))
    burst = await store.create(ended("burst", NOON - timedelta(hours=1)))  # by a clock that is behind
    await index.saw(Change(ref=burst.ref))
    missed = await store.create(ended("burst-unwatched", NOON))
    for _ in range(2):  # changes of what has ended, and looks at everything, pass nothing on again
        await index.load()
        for ref in (going[0].ref, going[1].ref, burst.ref, missed.ref):
            await index.saw(Change(ref=ref))
    assert sorted(passed_on[1:]) == ["burst", "burst-unwatched", "end-missed", "seen-to-the-end"]
    await store.delete(burst.ref)
    await index.saw(Change(ref=burst.ref, deleted=True))
    again = await store.create(ended("burst", NOON))
    await index.saw(Change(ref=again.ref))
    assert passed_on.count("burst") == 2  # another run of the same name
    await store.close()


async def test_nothing_that_ended_before_the_first_look_is_passed_on_where_no_time_is_known() -> None:
    store = await SqlStore.open(":memory:")
    passed_on: list[str] = []
    index = Index(store, lambda ended: passed_on.append(ended.name))
    await store.create(ended("old", NOON))
    await index.load()
    assert passed_on == []
    await store.close()
