"""Emptying the write-ahead log beside the writers."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from cloaca.store.sql.checkpoints import Checkpoints


def rows_in_the_file_alone(path: Path, copy: Path) -> int:
    """What a reader finds who has the file but not its log."""
    copy.write_bytes(path.read_bytes())
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return int(connection.execute("SELECT count(*) FROM numbers").fetchone()[0]) if tables else 0


def test_the_log_is_emptied_after_so_many_commits_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "numbers.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        checkpoints = Checkpoints(lambda: sqlite3.connect(path), every=3)
        seen = []
        for number in range(5):
            connection.execute("INSERT INTO numbers VALUES (?)", (number,))
            checkpoints.committed()
            checkpoints.close()
            seen.append(rows_in_the_file_alone(path, tmp_path / "copy.db"))
    assert seen == [0, 0, 3, 3, 3]


def test_what_cannot_be_emptied_now_is_left_for_the_next_time() -> None:
    tries = []

    def refuse() -> sqlite3.Connection:
        tries.append("tried")
        raise sqlite3.OperationalError("unable to open database file")

    checkpoints = Checkpoints(refuse, every=1)
    for _ in range(2):
        checkpoints.committed()
        checkpoints.close()
    assert tries == ["tried", "tried"]
