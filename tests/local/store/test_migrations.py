"""SQLite files of older and newer versions."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from cloaca.errors import StoreUnavailable
from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.store import open_store
from cloaca.store.sql.migrations import migrations_of, pending
from cloaca.store.sql.sqlite import SqliteDatabase
from cloaca.store.sql.url import SqliteUrl

FIRST = migrations_of("sqlite")[0]
ADDED = "CREATE TABLE added (name TEXT)"


def file_of_version_1(path: Path) -> None:
    """As the first release made it, with one object in it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST)
        connection.execute(
            "INSERT INTO objects (uid, kind, namespace, name, resource_version, generation, created, labels, "
            "annotations, owners, spec, status) VALUES ('u', 'WorkflowRun', 'default', 'old', 1, 1, "
            """'2026-01-01T00:00:00Z', '{}', '{}', '[]', '{"workflow":"w"}', '{}')"""
        )
        connection.execute("UPDATE counters SET value = 1 WHERE name = 'resource_version'")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()


def asked(path: Path, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


async def test_a_file_of_version_1_is_opened_and_written_by_this_version(tmp_path: Path) -> None:
    file_of_version_1(path := tmp_path / "old.db")
    store = await open_store(str(path))
    made = await store.create(WorkflowRun(metadata=ObjectMeta(name="new"), spec=RunSpec(workflow="w")))
    assert [run.name for run in await store.list(WorkflowRun)] == ["new", "old"]
    assert made.metadata.resource_version == "2"
    await store.close()
    assert asked(path, "PRAGMA user_version") == [(len(migrations_of("sqlite")),)]


async def test_labels_and_owners_of_version_1_are_found_and_let_go_of(tmp_path: Path) -> None:
    file_of_version_1(path := tmp_path / "old.db")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("""UPDATE objects SET labels = '{"team":"data"}'""")
        connection.execute("INSERT INTO labels VALUES ('team', 'data', 'u')")
        connection.commit()
    store = await open_store(str(path))
    (old,) = await store.list(WorkflowRun, labels={"team": "data"})
    await store.update(old.model_copy(update={"metadata": old.metadata.model_copy(update={"labels": {"team": "ml"}})}))
    assert await store.list(WorkflowRun, labels={"team": "data"}) == ()
    (new,) = await store.list(WorkflowRun, labels={"team": "ml"})
    await store.delete(new.ref)
    await store.close()
    assert asked(path, "SELECT * FROM labels") == []


async def test_an_older_file_is_upgraded_once_and_an_older_program_refuses_it_then(tmp_path: Path) -> None:
    file_of_version_1(path := tmp_path / "old.db")
    url = SqliteUrl(path=str(path))
    newer = (*migrations_of("sqlite"), ADDED)
    for _ in range(2):
        database = SqliteDatabase(url, newer)
        assert await database.read("SELECT name FROM objects", {}) == [("old",)]
        assert await database.read("SELECT * FROM added", {}) == []
        await database.close()
    with pytest.raises(StoreUnavailable, match=r"was written by a newer version .*: upgrade cloacina"):
        await open_store(str(path))


async def test_a_step_that_fails_leaves_the_older_file_as_it_was(tmp_path: Path) -> None:
    file_of_version_1(path := tmp_path / "old.db")
    newer = (*migrations_of("sqlite"), f"{ADDED};\nCREATE TABLE objects (name TEXT)")
    with pytest.raises(StoreUnavailable, match="already exists"):
        SqliteDatabase(SqliteUrl(path=str(path)), newer)
    assert asked(path, "SELECT name FROM sqlite_master WHERE name = 'added'") == []
    assert asked(path, "PRAGMA user_version") == [(1,)]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_each_kind_of_database_has_its_first_step(kind: str) -> None:
    assert "CREATE TABLE objects" in migrations_of(kind)[0]


def test_pending_steps_lead_from_the_version_of_a_database_to_ours() -> None:
    assert pending(("a", "b", "c"), 1, "it") == [(2, "b"), (3, "c")]
    assert pending(("a",), 1, "it") == []
    with pytest.raises(StoreUnavailable, match=r"it was written by a newer version \(schema 2, ours is 1\)"):
        pending(("a",), 2, "it")
