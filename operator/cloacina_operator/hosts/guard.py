"""Notice that the home or the database was removed or replaced under a running daemon, which then has to end.

A removed SQLite file goes on working for the processes that have it open: without this the daemon would poll and fire
into a file that nobody will ever read.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from cloaca.errors import CloacaError, StoreUnavailable
from cloaca.packages.files import in_own_thread
from cloaca.store.sql.url import SqliteUrl, parse_url
from cloacina_operator.hosts.lock import HomeLock

log = logging.getLogger("cloacina.daemon")

EVERY = 2.0  # seconds between two looks
AGAIN = 0.5  # seconds after which what was missing is looked for once more


class HomeLost(CloacaError):
    """The home, or the database, is not the one any more with which the daemon started."""

    def __init__(self, message: str, *, database: bool) -> None:
        """``database``: whether the database is lost, too. Its files must not be closed in the ordinary way: SQLite
        removes files by name when it closes, and those under that name may be another database's."""
        super().__init__(message)
        self.database = database


class Guard:
    """Looks after the home, its lock and the database, as they are when this is made."""

    def __init__(self, home: Path, store_url: str, lock: HomeLock) -> None:
        """Raises HomeLost if one of them is not there."""
        self._lock = lock
        self._home = _Watched(home, "the home")
        self._files = _database_files(store_url)
        self._said: set[str] = set()
        missing = self._missing()
        if missing is not None:
            raise missing

    async def keep(self) -> None:
        """Look after them until cancelled. Raises HomeLost, or AlreadyRunning if another daemon took the lock."""
        while True:
            await asyncio.sleep(EVERY)
            if await in_own_thread(self._missing) is None:
                await in_own_thread(self._keep_lock)
                continue
            await asyncio.sleep(AGAIN)
            missing = await in_own_thread(self._missing)
            if missing is not None:
                raise missing

    def _missing(self) -> HomeLost | None:
        """What is lost; None: nothing is."""
        lost = [said for file in self._files if (said := self._said_of(file)) is not None]
        said = self._said_of(self._home) or (lost[0] if lost else None)
        if said is None:
            return None
        return HomeLost(
            f"{said}: the daemon cannot go on. Nothing is polled any more; bring it back if it was moved, and start "
            "the daemon again",
            database=bool(lost),
        )

    def _said_of(self, file: _Watched) -> str | None:
        try:
            return file.lost()
        except OSError as error:  # it may be there: a network that is away, say
            self._say(f"{file.what} {file.path} cannot be looked at: {error.strerror or error}")
            return None

    def _keep_lock(self) -> None:
        try:
            self._lock.ensure()
        except OSError as error:
            self._say(f"the lock of the home cannot be taken again: {error.strerror or error}")

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", message)


class _Watched:
    """A file or folder, and which one it was at first."""

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self._first: tuple[int, int] | None = None

    def lost(self) -> str | None:
        """What happened to it, in words; None: it is the same. Raises OSError where that cannot be learned."""
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return f"{self.what} {self.path} was removed or moved away"
        found = (status.st_dev, status.st_ino)
        if self._first is None:
            self._first = found
        return None if found == self._first else f"{self.what} {self.path} was replaced by another one"


def _database_files(store_url: str) -> list[_Watched]:
    """The files of the store that stay the same for as long as somebody has it open; none of a server's."""
    try:
        url = parse_url(store_url)
    except StoreUnavailable:
        return []
    if not isinstance(url, SqliteUrl) or url.memory:
        return []
    files = [_Watched(Path(url.path), "the database")]
    path = Path(os.path.realpath(url.path))  # beside which SQLite puts its other files
    for suffix, what in (("-wal", "the log of the database"), ("-shm", "the index of the log of the database")):
        beside = path.with_name(f"{path.name}{suffix}")
        if beside.exists():  # else it is on a file system where SQLite cannot have one
            files.append(_Watched(beside, what))
    return files
