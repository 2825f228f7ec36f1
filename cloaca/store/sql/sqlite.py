"""SQLite as the store's database: a file that several processes share, or memory.

A file is in write-ahead mode: readers never wait, writers take turns. docs/decisions/0012 says what is durable when.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cloaca.errors import StoreUnavailable
from cloaca.store.sql.batches import CLOSED
from cloaca.store.sql.checkpoints import Checkpoints
from cloaca.store.sql.database import Work
from cloaca.store.sql.feed import Feed
from cloaca.store.sql.filelock import FileLock
from cloaca.store.sql.forks import LONGEST_WAIT, inherit, is_inherited, watch
from cloaca.store.sql.migrations import migrations_of, pending
from cloaca.store.sql.statements import named, read
from cloaca.store.sql.transactions import Transactions, WritingConnection
from cloaca.store.sql.url import MEMORY, SqliteUrl

T = TypeVar("T")
C = TypeVar("C", bound=sqlite3.Connection)

MIGRATIONS = migrations_of("sqlite")

_OLDEST = (3, 35, 0)  # the first with RETURNING
_BUSY_MS = 2  # a write that may run in an event loop waits no longer for programs that know nothing of our lock file
_LARGEST_LOG = 64 * 1024 * 1024  # bytes to which the write-ahead log is cut back once it was larger
_FILES = 12  # three connections with a database, its log and the index of it each; our lock; room for a temporary one
_LONGEST_PATH = 504  # bytes: 512 with what SQLite appends
_LOG_PAGES = 16_000  # of 4 KiB: the commit that finds so many empties the log itself, if our own thread did not keep up


class SqliteDatabase:
    """One connection writes, one reads, one only looks whether others wrote; in memory one does everything."""

    waits = False
    statements: Mapping[str, str] = named(read("sqlite.sql"))

    def __init__(self, url: SqliteUrl, migrations: Sequence[str] | None = None) -> None:
        self._url = url
        self._path = None if url.memory else Path(url.path)
        self._absolute = None if self._path is None else self._path.absolute()  # wherever the program goes from here
        self._lost = False  # the connections could not be opened again after a fork
        self._held: list[threading.Lock] = []  # while this process forks
        self._pid = os.getpid()
        if self._path is not None and is_inherited(self._path):
            raise StoreUnavailable(_INHERITED.format(path=self._path))
        self._closing = threading.Lock()
        self._closed = False
        file = FileLock(None if self._path is None or url.mode == "ro" else f"{self._path}.lock")
        opened: list[sqlite3.Connection] = []
        try:
            opened.append(writing := _connect(url, self._path, WritingConnection))
            # several processes that make one file at once take turns; where it takes too long, SQLite's wait decides
            turn = file.wait(url.busy_timeout)
            try:
                _prepare(opened[0], url)
                _migrate(opened[0], self._path, migrations or MIGRATIONS, read_only=url.mode == "ro")
                opened += [] if url.memory else [_another(url, self._path) for _ in range(2)]
                if url.mode != "ro":
                    opened[0].execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            finally:
                if turn:
                    file.give()
        except BaseException as error:
            for connection in opened:
                connection.close()
            file.close()
            if isinstance(error, sqlite3.Error):
                raise self._explain(error) from error
            raise
        self._reading: sqlite3.Connection = writing if url.memory else opened[1]
        self._feed = Feed(None if url.memory else opened[2], file.path)
        self._checkpoints = None if url.memory else Checkpoints(lambda: _another(url, self._path))
        self._transactions = Transactions(
            writing, file=file, patience=url.busy_timeout, committed=self._committed, explain=self._explain
        )
        self._read_lock = self._transactions.lock if url.memory else threading.Lock()
        self._file_id = None if self._absolute is None else _file_id(self._absolute)
        watch(self)

    async def read(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """As in the protocol. In the calling thread: a read takes microseconds and never waits for a writer."""
        return self.read_here(statement, parameters)

    def read_here(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """As in the protocol."""
        self._check_usable()
        with self._read_lock:
            try:
                return self._reading.execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise self._explain(error) from error

    async def write(self, work: Work[T]) -> T:
        """As in the protocol."""
        self._check_usable()
        return await self._transactions.run(work)

    def write_here(self, work: Work[T]) -> T:
        """As in the protocol."""
        self._check_usable()
        return self._transactions.run_here(work)

    def subscribe(self) -> asyncio.Event:
        """As in the protocol."""
        return self._feed.subscribe()

    def unsubscribe(self, event: asyncio.Event) -> None:
        """As in the protocol."""
        self._feed.unsubscribe(event)

    async def close(self) -> None:
        """As in the protocol."""
        self.close_here()

    def close_here(self) -> None:
        """As in the protocol. In a forked child it touches nothing: all of it is the parent's."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        if os.getpid() != self._pid:
            return
        self._feed.close()
        self._transactions.close()
        if self._checkpoints is not None:
            self._checkpoints.close()
        with self._read_lock:
            self._reading.close()

    def _committed(self) -> None:
        self._feed.committed()
        if self._checkpoints is not None:
            self._checkpoints.committed()

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise StoreUnavailable("this store was opened by the parent process: open one after the fork")
        if self._closed:
            raise StoreUnavailable(CLOSED)
        if self._lost:
            self._open_again()

    # --- forks

    def suspend(self) -> None:
        """As in ``Forkable``. If a write does not end in time, all stays as it is, and the child refuses the file."""
        locks = [self._closing, self._transactions.lock, self._read_lock, self._feed.lock]
        if self._checkpoints is not None:
            locks.append(self._checkpoints.lock)
        for lock in dict.fromkeys(locks):
            if not lock.acquire(timeout=LONGEST_WAIT):
                self._let_go()
                return
            self._held.append(lock)
        if self._path is not None and not self._closed and not self._lost:
            for connection in (self._feed.connection, self._reading, self._transactions.connection):
                if connection is not None:
                    connection.close()

    def resume(self) -> None:
        """As in ``Forkable``."""
        if not self._held:
            return  # nothing was closed
        try:
            if self._path is not None and not self._closed:
                self._lost = True
                with suppress(StoreUnavailable):  # whoever uses it next tries again
                    self._connect_again()
        finally:
            self._let_go()

    def orphan(self) -> None:
        """As in ``Forkable``."""
        suspended = bool(self._held)
        self._closed = True
        self._closing = threading.Lock()
        self._held.clear()
        if suspended:
            return
        if self._file_id is not None:
            inherit(*self._file_id)
        for connection in (self._feed.connection, self._reading, self._transactions.connection):
            if connection is not None:
                _never_close(connection)

    def _open_again(self) -> None:
        with self._closing, self._transactions.lock, self._read_lock, self._feed.lock:
            if self._lost and not self._closed:
                self._connect_again()

    def _connect_again(self) -> None:
        """Open the connections that were closed for a fork. Called with the locks held. Raises StoreUnavailable."""
        if self._absolute is None or _file_id(self._absolute) != self._file_id:
            raise StoreUnavailable(f"the database {self._path} is gone or was replaced: restore it, or open it again")
        opened: list[sqlite3.Connection] = []
        url = self._url if self._url.mode == "ro" else replace(self._url, mode="rw")
        try:
            opened.append(writing := _connect(url, self._absolute, WritingConnection))
            _prepare(writing, url)
            opened += [_another(url, self._absolute) for _ in range(2)]
            if url.mode != "ro":
                writing.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        except sqlite3.Error as error:
            for connection in opened:
                connection.close()
            raise self._explain(error) from error
        self._transactions.connection, self._reading, self._feed.connection = writing, opened[1], opened[2]
        self._lost = False

    def _let_go(self) -> None:
        while self._held:
            self._held.pop().release()

    def _explain(self, error: Exception) -> StoreUnavailable:
        return unavailable(error, self._path)


_INHERITED = (
    "the database {path} was being written at the moment when this process was forked, so this process cannot open it: "
    "fork again, or start a process that is not a fork"
)


def _file_id(path: Path) -> tuple[int, int] | None:
    """What tells the file at ``path`` from every other; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _never_close(connection: sqlite3.Connection) -> None:
    """Keep it for ever: closing it in a forked child would harm the parent's."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def unavailable(error: Exception, path: Path | None) -> StoreUnavailable:
    """What SQLite said, as a sentence that says what to do."""
    where = "the database in memory" if path is None else f"the database {path}"
    text = str(error)
    advice = next((f": {advice}" for words, advice in _ADVICE if words in text), "")
    if path is not None and "unable to open" in text:
        advice = f": {_why_not_opened(path)}"
    explained = StoreUnavailable(f"{where}: {text}{advice}")
    explained.__cause__ = error
    return explained


def _descriptors_are_left() -> bool:
    """Whether as many files can be opened as SQLite needs for one database."""
    opened: list[int] = []
    try:
        opened.extend(os.open("/", os.O_RDONLY) for _ in range(_FILES))
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


def _why_not_opened(path: Path) -> str:
    if not _descriptors_are_left():  # of which SQLite says the same
        return "this process may open no more files: raise the limit (ulimit -n)"
    if len(os.fsencode(path.absolute())) > _LONGEST_PATH:
        return f"its path is too long for SQLite, which takes {_LONGEST_PATH} bytes: use a shorter one"
    if path.is_dir():
        return "it is a folder: name a file in it"
    if not path.parent.is_dir():
        return f"its folder must exist: make {path.parent}"
    if not path.exists():
        return "it is not there: make its folder writable, and write mode=rwc in the URL, or leave mode out"
    return "make the file and its folder readable and writable"


_ADVICE = (
    ("disk is full", "make room; what was written before stands"),
    ("disk I/O error", "look after the disk (and its free space); what was written before stands"),
    ("readonly", "make the file and its folder writable, leave out mode=ro, or open another one"),
    ("locked", "another program holds it: end that one"),
    ("malformed", "the file is damaged: restore it from a backup, or move it away to start afresh"),
    ("not a database", "the file is something else: name another one"),
)


def _connect(url: SqliteUrl, path: Path | None, kind: type[C]) -> C:
    if sqlite3.sqlite_version_info < _OLDEST:
        needed = ".".join(map(str, _OLDEST))
        raise StoreUnavailable(f"Python's SQLite is {sqlite3.sqlite_version}: {needed} or newer is needed")
    if path is None:
        return kind(MEMORY, isolation_level=None, check_same_thread=False)
    uri = f"{path.absolute().as_uri()}?mode={url.mode}"
    return kind(uri, uri=True, timeout=url.busy_timeout, isolation_level=None, check_same_thread=False)


def _another(url: SqliteUrl, path: Path | None) -> sqlite3.Connection:
    return _prepare(_connect(url, path, sqlite3.Connection), url)


def _prepare(connection: sqlite3.Connection, url: SqliteUrl) -> sqlite3.Connection:
    try:
        if not url.memory:
            if url.mode != "ro":
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_LOG}")
                connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            connection.execute(f"PRAGMA synchronous = {url.synchronous}")
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path | None, migrations: Sequence[str], *, read_only: bool) -> None:
    """Bring the schema to our version, in one transaction. A newer one than ours is refused, and left alone."""
    where = "the database in memory" if path is None else f"the database {path}"
    if not pending(migrations, _version(connection), where):
        return
    if read_only:
        raise StoreUnavailable(
            f"{where} is empty or of an older version (schema {_version(connection)}, ours is {len(migrations)}), and "
            "opened read-only: open it with mode=rw once"
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number, text in pending(migrations, _version(connection), where):  # another process may have been quicker
            for statement in _statements(text):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(text: str) -> Iterator[str]:
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):  # which knows where a trigger ends
            yield statement
            statement = ""
    yield statement


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
