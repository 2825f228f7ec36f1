"""The record of a run in a store: written while this process has the right to, refused when it has not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloaca.engine.journal import Plain, StoreJournal
from cloaca.errors import RunLost, StoreUnavailable
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.run import RunPhase, RunSpec, RunStatus, WorkflowRun
from cloaca.store import open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Any]:
    store = await open_store(str(tmp_path / "runs.db"))
    yield store
    await store.close()


def a_run() -> WorkflowRun:
    return WorkflowRun(metadata=ObjectMeta(name="nightly-1"), spec=RunSpec(workflow="nightly"), status=RunStatus())


RUNNING = RunStatus(phase=RunPhase.RUNNING, attempt=1)
COMPLETED = RunStatus(phase=RunPhase.COMPLETED, attempt=1, context={"n": 1})


async def stored(store: Any) -> WorkflowRun:
    run = await store.get(WorkflowRun, "nightly-1")
    assert run is not None
    return run  # type: ignore[no-any-return]  # the store is whichever open_store gives


async def test_the_first_record_creates_the_run_and_the_next_ones_change_it(store: Any) -> None:
    journal = StoreJournal(store, a_run(), created=False)

    journal.write(Plain(RUNNING))
    assert (await stored(store)).status == RUNNING
    journal.write(Plain(COMPLETED))
    assert (await stored(store)).status == COMPLETED
    assert journal.run == await stored(store)


async def test_a_change_of_the_spec_is_no_hindrance(store: Any) -> None:
    journal = StoreJournal(store, await store.create(a_run()), created=True)
    journal.write(Plain(RUNNING))
    await store.update((await stored(store)).with_spec(cancel=True))

    journal.write(Plain(COMPLETED))

    found = await stored(store)
    assert (found.status, found.spec.cancel) == (COMPLETED, True)


async def test_a_run_that_was_deleted_is_lost(store: Any) -> None:
    journal = StoreJournal(store, await store.create(a_run()), created=True)
    await store.delete(a_run().ref)

    with pytest.raises(RunLost, match="run 'nightly-1' was deleted while it ran"):
        journal.write(Plain(RUNNING))


async def test_another_run_of_the_same_name_is_not_written(store: Any) -> None:
    journal = StoreJournal(store, await store.create(a_run()), created=True)
    await store.delete(a_run().ref)
    another = await store.create(a_run())

    with pytest.raises(RunLost):
        journal.write(Plain(RUNNING))
    assert (await stored(store)) == another


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (RunStatus(phase=RunPhase.FAILED, attempt=1, message="closed"), "was ended by someone else: Failed"),
        (RunStatus(phase=RunPhase.RUNNING, attempt=2), "was given to attempt 2"),
    ],
    ids=["ended", "another attempt"],
)
async def test_a_run_that_somebody_else_has_written_is_lost_and_stays_as_they_wrote_it(
    store: Any, theirs: RunStatus, message: str
) -> None:
    journal = StoreJournal(store, await store.create(a_run()), created=True)
    journal.write(Plain(RUNNING))
    await store.write_status((await stored(store)).model_copy(update={"status": theirs}))

    with pytest.raises(RunLost, match=message):
        journal.write(Plain(COMPLETED))
    assert (await stored(store)).status == theirs


class Away:
    """A store that is away for the first tries; ``applied``: it does what it was asked, and its answer is lost."""

    def __init__(self, store: Any, tries: int, *, applied: bool) -> None:
        self._store = store
        self._left = tries
        self._applied = applied
        self.get_here = store.get_here
        self.waits = False

    def write_status_here(self, obj: WorkflowRun, version: str, status: Plain) -> str:
        if not self._left:
            return self._store.write_status_here(obj, version, status)  # type: ignore[no-any-return]  # whichever it is
        self._left -= 1
        if self._applied:
            self._store.write_status_here(obj, version, status)
        raise StoreUnavailable("gone fishing")


@pytest.mark.parametrize("applied", [False, True], ids=["nothing applied", "applied, the answer lost"])
async def test_a_store_that_is_away_for_a_while_costs_no_progress(store: Any, applied: bool) -> None:
    away = Away(store, 1 if applied else 3, applied=applied)
    journal = StoreJournal(away, await store.create(a_run()), created=True, patience=(0.0, 0.0, 0.0))
    journal.write(Plain(RUNNING))
    journal.write(Plain(COMPLETED))
    assert (await stored(store)).status == COMPLETED


async def test_patience_has_an_end(store: Any) -> None:
    made = await store.create(a_run())
    journal = StoreJournal(Away(store, 4, applied=False), made, created=True, patience=(0.0, 0.0, 0.0))
    with pytest.raises(StoreUnavailable, match="gone fishing"):
        journal.write(Plain(RUNNING))
