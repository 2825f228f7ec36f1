"""A database that cannot be used: each a StoreUnavailable whose message says what to do, and nothing is harmed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cloaca
from cloaca.errors import CloacaError, StoreUnavailable


def filled(path: Path) -> Path:
    """A database with a run in it."""
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner(str(path)) as runner:
        assert runner.execute("w", {"text": "x" * 100_000}).status == "Completed"
    return path


def no_server(tmp_path: Path) -> str:
    return f"postgresql://me:secret@/db?host={tmp_path}"


def no_such_host(_: Path) -> str:
    return "postgresql://me:secret@no-such-host.invalid/db"


def no_folder(tmp_path: Path) -> str:
    return str(tmp_path / "nowhere" / "runs.db")


def a_folder(tmp_path: Path) -> str:
    return str(tmp_path)


def must_be_there(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db?mode=rw"


def no_database(tmp_path: Path) -> str:
    (tmp_path / "runs.db").write_bytes(b"words, and no database\n" * 1000)
    return str(tmp_path / "runs.db")


def cut_off(tmp_path: Path) -> str:
    path = filled(tmp_path / "runs.db")
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    return str(path)


def scribbled_on(tmp_path: Path) -> str:
    path = filled(tmp_path / "runs.db")
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096) * ((path.stat().st_size - 4096) // 4096))
    return str(path)


def newer(tmp_path: Path) -> str:
    path = filled(tmp_path / "runs.db")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    return str(path)


def read_only_by_its_url(tmp_path: Path) -> str:
    return f"sqlite:///{filled(tmp_path / 'runs.db')}?mode=ro"


@pytest.mark.parametrize(
    ("database", "words"),
    [
        (no_server, ("start the server, or name the folder of its socket as host",)),
        (no_such_host, ("correct the host",)),
        (no_folder, ("its folder must exist: make ", "nowhere")),
        (a_folder, ("it is a folder: name a file in it",)),
        (must_be_there, ("it is not there", "write mode=rwc in the URL")),
        (no_database, ("is not a database",)),
        (cut_off, ("malformed", "backup")),
        (scribbled_on, ("malformed", "backup")),
        (newer, ("schema 999", "newer")),
        (read_only_by_its_url, ("readonly", "make the file and its folder writable, leave out mode=ro")),
    ],
    ids=lambda it: getattr(it, "__name__", ""),
)
def test_a_database_that_cannot_be_used_says_what_to_do(
    tmp_path: Path, database: Callable[[Path], str], words: tuple[str, ...]
) -> None:
    url = database(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.db")}
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)

    def use() -> Any:
        with cloaca.DefaultRunner(url) as runner:
            return runner.execute("w", {"text": "y" * 100_000})

    with pytest.raises(StoreUnavailable) as refusal:
        use()
    assert isinstance(refusal.value, CloacaError)
    assert [word for word in words if word not in str(refusal.value)] == [], str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert {path: path.read_bytes() for path in before} == before


def test_a_file_that_another_program_has_locked_is_named_after_the_patience_of_its_url(tmp_path: Path) -> None:
    path = filled(tmp_path / "runs.db")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(
            StoreUnavailable, match=r"runs.db: locked for 0.2 s: another program holds it: end that one"
        ):
            cloaca.DefaultRunner(f"sqlite:///{path}?_busy_timeout=200")
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    with cloaca.DefaultRunner(str(path)) as runner:
        assert runner.execute("w").status == "Completed"
