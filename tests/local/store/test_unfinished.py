"""The database itself leaves out the runs that have ended: no program reads them to find those that have not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import postgres_server
import pytest

from cloaca.resources import ObjectMeta, RunPhase, RunSpec, WorkflowRun
from cloaca.store import open_store
from cloaca.store.sql.statements import named, read
from cloaca.store.sql.store import SqlStore

STATEMENT = named(read("queries.sql"))["unfinished_runs"]


@pytest.fixture(params=["file", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlStore]:
    url = str(tmp_path / "store.db") if request.param == "file" else postgres_server.shared().url()
    opened = await open_store(url)
    assert isinstance(opened, SqlStore)
    yield opened
    await opened.close()


@pytest.mark.parametrize("phase", RunPhase)
async def test_a_status_begins_with_its_phase(store: SqlStore, phase: RunPhase) -> None:
    """The statement rests on it."""
    run = WorkflowRun(metadata=ObjectMeta(name="run"), spec=RunSpec(workflow="w"))
    await store.create(run.with_status(phase=phase, message="x"))
    ((status,),) = await store._database.read("SELECT status FROM objects", {})
    assert status.startswith(f'{{"phase":"{phase.value}"')
    ended = await store._database.read(f"SELECT count(*) FROM ({STATEMENT}) AS found", {})
    assert ended[0][0] == (not phase.finished)
