"""Write transactions on one SQLite file: at once where nobody is in the way, else grouped into few commits.

A write that finds the file free is made by its own thread, in some 20 µs. Where another thread or process is writing,
it queues for one writer thread, which puts all that has gathered into one commit. Between processes the order is kept
by a lock file, on which the kernel lets processes sleep; SQLite's own wait only polls, and can starve.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from cloaca.errors import StoreError, StoreUnavailable

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
"""Runs inside a transaction. What it raises as StoreError it raises before its first write, so others' stand."""

_MOST_AT_ONCE = 256


class Transactions:
    """The one connection that writes. Thread-safe."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None, committed: Callable[[], None]) -> None:
        self._connection = connection
        self._path = path  # None: in memory, where no other process can be
        self._committed = committed
        self.lock = threading.Lock()  # held by whoever uses the connection
        self._waiting: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._waiters = 0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._lock_file = None if path is None else _open_lock_file(path)
        self._pid = os.getpid()

    async def run(self, work: Work[T]) -> T:
        """What ``work`` returns, once it is committed. Raises what it raises, or StoreUnavailable."""
        if os.getpid() != self._pid:
            raise StoreUnavailable("this store was opened by the parent process: open one after the fork")
        if self._waiters == 0 and self.lock.acquire(blocking=False):
            try:
                if self._take_file(wait=False):
                    try:
                        committed: Future[T] = self._commit([work])[0]
                        return committed.result()
                    finally:
                        self._give_file()
            finally:
                self.lock.release()
        return await asyncio.wrap_future(self._enqueue(work))

    def close(self) -> None:
        """End the writer thread and the connection; what was queued is written first."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
        with self.lock:
            self._connection.close()
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    def _enqueue(self, work: Work[T]) -> Future[T]:
        future: Future[T] = Future()
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="cloaca-store", daemon=True)
                self._thread.start()
            self._waiters += 1
        self._waiting.put((work, future))
        return future

    def _write(self) -> None:
        """The writer thread: takes what has gathered, commits it together, answers."""
        while True:
            first = self._waiting.get()
            if first is None:
                return
            batch = [first]
            ending = False
            with self.lock:
                self._take_file(wait=True)
                try:
                    while len(batch) < _MOST_AT_ONCE:
                        try:
                            following = self._waiting.get_nowait()
                        except queue.Empty:
                            break
                        if following is None:
                            ending = True
                            break
                        batch.append(following)
                    results = self._commit([work for work, _ in batch])
                finally:
                    self._give_file()
            with self._starting:
                self._waiters -= len(batch)
            for (_, waiting), result in zip(batch, results, strict=True):
                if waiting.set_running_or_notify_cancel():
                    _hand_over(result, waiting)
            if ending:
                return

    def _commit(self, batch: list[Work[Any]]) -> list[Future[Any]]:
        """Run every work of ``batch`` in one transaction; one that refuses does not affect the others."""
        results: list[Future[Any]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for work in batch:
                result: Future[Any] = Future()
                try:
                    result.set_result(work(self._connection))
                except StoreError as refusal:
                    result.set_exception(refusal)
                results.append(result)
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            failed = unavailable(error, self._path)
            return [_failed(failed) for _ in batch]
        self._tell()
        self._committed()
        return results

    def _take_file(self, *, wait: bool) -> bool:
        if self._lock_file is None:
            return True
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP):
                return True  # a file system without locks: SQLite's own wait has to do
            raise
        return True

    @property
    def lock_file(self) -> str | None:
        """The file that is written to after each commit, by every process; None: there is none."""
        return None if self._lock_file is None else f"{self._path}.lock"

    def _tell(self) -> None:
        """Let other processes know of a commit: the kernel tells them that the lock file was written to."""
        if self._lock_file is not None:
            with suppress(OSError):  # a full disk; they look now and then all the same
                os.pwrite(self._lock_file, b".", 0)

    def _give_file(self) -> None:
        if self._lock_file is not None:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)


def _hand_over(result: Future[Any], waiting: Future[Any]) -> None:
    error = result.exception()
    if error is None:
        waiting.set_result(result.result())
    else:
        waiting.set_exception(error)


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _open_lock_file(path: Path) -> int | None:
    """The lock file beside the database; None where none can be made (a read-only folder)."""
    try:
        return os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return None


def unavailable(error: sqlite3.Error, path: Path | None) -> StoreUnavailable:
    """What SQLite said, as a sentence that says what to do."""
    where = "the database in memory" if path is None else f"the database {path}"
    text = str(error)
    for words, advice in _ADVICE:
        if words in text:
            return _caused(StoreUnavailable(f"{where}: {text}: {advice}"), error)
    return _caused(StoreUnavailable(f"{where}: {text}"), error)


_ADVICE = (
    ("disk is full", "make room; what was written before stands"),
    ("disk I/O error", "look after the disk (and its free space); what was written before stands"),
    ("readonly", "make the file and its folder writable, or open another one"),
    ("unable to open", "its folder must exist and be writable"),
    ("locked", "another program holds it: end that one"),
    ("malformed", "the file is damaged: restore it from a backup, or move it away to start afresh"),
    ("not a database", "the file is something else: name another one"),
)


def _caused(outer: StoreUnavailable, inner: BaseException) -> StoreUnavailable:
    outer.__cause__ = inner
    return outer
