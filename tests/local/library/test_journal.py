"""The record of a run in a store: written while this process has the right to, refused when it has not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cloaca.engine.journal import StoreJournal
from cloaca.engine.record import Kept, Record
from cloaca.errors import RunLost, StoreUnavailable
from cloaca.library.journal import NewRunJournal
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.phases import RunPhase
from cloaca.resources.recorded import RecordedStatus
from cloaca.resources.ref import Ref
from cloaca.resources.run import RunSpec, RunStatus, WorkflowRun
from cloaca.store import open_store
from cloaca.store.blocking import recorded
from cloaca.store.sql.rows import status_json


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Any]:
    store = await open_store(str(tmp_path / "runs.db"))
    yield store
    await store.close()


def a_run() -> WorkflowRun:
    return WorkflowRun(metadata=ObjectMeta(name="nightly-1"), spec=RunSpec(workflow="nightly"), status=RunStatus())


NOW = datetime(2026, 3, 28, 9, tzinfo=timezone.utc)
RUNNING = RunStatus(phase=RunPhase.RUNNING, attempt=1)
COMPLETED = RunStatus(phase=RunPhase.COMPLETED, attempt=1, context={"n": 1})


def json_of(status: RunStatus) -> str:
    return status_json(a_run().model_copy(update={"status": status}))


async def stored(store: Any) -> WorkflowRun:
    run = await store.get(WorkflowRun, "nightly-1")
    assert run is not None
    return run  # type: ignore[no-any-return]  # the store is whichever open_store gives


def a_record(status: RunStatus) -> Record:
    context = None if status.context is None else Kept(status.context)
    return Record(RecordedStatus(attempt=1), status.phase, (), {}, context, NOW, None, None, None)


async def test_the_first_record_creates_the_run_and_the_next_ones_change_it(store: Any) -> None:
    journal = NewRunJournal(store, a_run())
    assert journal.uid == ""

    journal.write(a_record(RUNNING))
    made = await stored(store)
    assert (made.status.phase, journal.uid) == (RunPhase.RUNNING, made.metadata.uid)
    journal.write(a_record(COMPLETED))
    assert (await stored(store)).status == COMPLETED.model_copy(update={"started_at": NOW})


async def test_a_run_that_was_made_and_then_changed_is_read_again(store: Any) -> None:
    journal = NewRunJournal(store, a_run())
    journal.write(a_record(RUNNING))
    await store.update((await stored(store)).with_spec(cancel=True))

    journal.write(a_record(COMPLETED))

    found = await stored(store)
    assert (found.status.phase, found.spec.cancel) == (RunPhase.COMPLETED, True)


async def test_a_change_of_the_spec_is_no_hindrance(store: Any) -> None:
    journal = StoreJournal(store, recorded(await store.create(a_run())))
    journal.write_text(json_of(RUNNING))
    await store.update((await stored(store)).with_spec(cancel=True))

    journal.write_text(json_of(COMPLETED))

    found = await stored(store)
    assert (found.status, found.spec.cancel) == (COMPLETED, True)


async def test_a_run_that_was_deleted_is_lost(store: Any) -> None:
    journal = StoreJournal(store, recorded(await store.create(a_run())))
    await store.delete(a_run().ref)

    with pytest.raises(RunLost, match="run 'nightly-1' was deleted while it ran"):
        journal.write_text(json_of(RUNNING))


async def test_another_run_of_the_same_name_is_not_written(store: Any) -> None:
    journal = StoreJournal(store, recorded(await store.create(a_run())))
    await store.delete(a_run().ref)
    another = await store.create(a_run())

    with pytest.raises(RunLost):
        journal.write_text(json_of(RUNNING))
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
    journal = StoreJournal(store, recorded(await store.create(a_run())))
    journal.write_text(json_of(RUNNING))
    await store.write_status((await stored(store)).model_copy(update={"status": theirs}))

    with pytest.raises(RunLost, match=message):
        journal.write_text(json_of(COMPLETED))
    assert (await stored(store)).status == theirs


class Away:
    """A store that is away for the first tries; ``applied``: it does what it was asked, and its answer is lost."""

    def __init__(self, store: Any, tries: int, *, applied: bool) -> None:
        self._store = store
        self._left = tries
        self._applied = applied
        self.run_here = store.run_here
        self.waits = False

    def record_here(self, ref: Ref, uid: str, version: str, status: str) -> str:
        if not self._left:
            return self._store.record_here(ref, uid, version, status)  # type: ignore[no-any-return]  # whichever it is
        self._left -= 1
        if self._applied:
            self._store.record_here(ref, uid, version, status)
        raise StoreUnavailable("gone fishing")


@pytest.mark.parametrize("applied", [False, True], ids=["nothing applied", "applied, the answer lost"])
async def test_a_store_that_is_away_for_a_while_costs_no_progress(store: Any, applied: bool) -> None:
    away = Away(store, 1 if applied else 3, applied=applied)
    journal = StoreJournal(away, recorded(await store.create(a_run())), patience=(0.0, 0.0, 0.0))
    journal.write_text(json_of(RUNNING))
    journal.write_text(json_of(COMPLETED))
    assert (await stored(store)).status == COMPLETED


async def test_patience_has_an_end(store: Any) -> None:
    made = await store.create(a_run())
    journal = StoreJournal(Away(store, 4, applied=False), recorded(made), patience=(0.0, 0.0, 0.0))
    with pytest.raises(StoreUnavailable, match="gone fishing"):
        journal.write_text(json_of(RUNNING))
