"""Empty the write-ahead log into the file, in a thread of its own, so that no write waits for the disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress

EVERY = 1_000  # commits of this process; each adds some five pages of 4 KiB to the log


class Checkpoints:
    """Counts commits, and empties the log now and then. ``connect`` makes a connection of its own for that."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], every: int = EVERY) -> None:
        self._connect = connect
        self._every = every
        self._commits = 0
        self._thread: threading.Thread | None = None
        self.lock = threading.Lock()  # held while a log is emptied

    def committed(self) -> None:
        """A commit was made. Called by one thread at a time."""
        self._commits += 1
        if self._commits >= self._every and (self._thread is None or not self._thread.is_alive()):
            self._commits = 0
            self._thread = threading.Thread(target=self._empty, name="cloaca-checkpoint", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait for the one that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _empty(self) -> None:
        with self.lock, suppress(sqlite3.Error), closing(self._connect()) as connection:  # the next one may succeed
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
