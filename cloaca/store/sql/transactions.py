"""Write transactions on one SQLite connection: at once where nobody is in the way, else grouped into few commits.

A write that finds the database free is made by its own thread, in some 20 µs. Where another thread, process or program
is writing, it queues for one writer thread, which waits for its turn and puts all that has gathered into one commit.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from cloaca.errors import StoreError, StoreUnavailable
from cloaca.store.sql.database import Work
from cloaca.store.sql.filelock import FileLock

T = TypeVar("T")

Outcome = tuple[Any, Exception | None]
"""What a work returned, or what it raised."""

CLOSED = "the store was closed: open it again"

_MOST_AT_ONCE = 256
_PAUSE = 0.002  # seconds between two tries while a program that knows nothing of our lock file writes


class _Waiting(Generic[T]):
    """A write in the queue, and who waits for it."""

    def __init__(self, work: Work[T]) -> None:
        self.work = work
        self.future: Future[T] = Future()


class Transactions:
    """The one connection that writes. Thread-safe."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        file: FileLock,
        patience: float,
        committed: Callable[[], None],
        explain: Callable[[Exception], StoreUnavailable],
    ) -> None:
        self.lock = threading.Lock()  # held by whoever uses the connection
        self._connection = connection  # its own busy timeout is short: it may be used in an event loop
        self._file = file
        self._patience = patience  # seconds until a write that gets no turn fails
        self._committed = committed
        self._explain = explain
        self._queue: queue.SimpleQueue[_Waiting[Any] | None] = queue.SimpleQueue()
        self._queued = 0
        self._thread: threading.Thread | None = None
        self._ended = False
        self._guard = threading.Lock()  # of the three above

    async def run(self, work: Work[T]) -> T:
        """What ``work`` returns, once it is committed. Raises what it raises, or StoreUnavailable."""
        if self._queued == 0 and self.lock.acquire(blocking=False):
            try:
                outcome = self._at_once(work)
            finally:
                self.lock.release()
            if outcome is not None:
                value, error = outcome
                if error is not None:
                    raise error
                return value  # type: ignore[no-any-return]  # an outcome is as its work, one by one
        return await asyncio.wrap_future(self._enqueue(work))

    def close(self) -> None:
        """End the writer thread and the connection; what was queued is written first."""
        with self._guard:
            self._ended = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        with self.lock:
            self._connection.close()
            self._file.close()

    def _at_once(self, work: Work[Any]) -> Outcome | None:
        """Its outcome; None: somebody else is writing."""
        if self._ended:
            raise StoreUnavailable(CLOSED)
        if not self._file.take():
            return None
        try:
            return self._commit([work])[0] if self._begin() else None
        finally:
            self._file.give()

    def _enqueue(self, work: Work[T]) -> Future[T]:
        waiting = _Waiting(work)
        with self._guard:
            if self._ended:
                raise StoreUnavailable(CLOSED)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="cloaca-store", daemon=True)
                self._thread.start()
            self._queued += 1
            self._queue.put(waiting)
        return waiting.future

    def _write(self) -> None:
        """The writer thread: waits for its turn, commits what has gathered meanwhile, answers."""
        while (first := self._queue.get()) is not None:
            with self.lock:
                turn = self._file.wait(self._patience)
                gathered = self._gathered(first)
                batch = [waiting for waiting in gathered if waiting.future.set_running_or_notify_cancel()]
                try:
                    outcomes = self._together([waiting.work for waiting in batch], turn=turn)
                finally:
                    if turn:
                        self._file.give()
            with self._guard:
                self._queued -= len(gathered)
            for waiting, (value, error) in zip(batch, outcomes, strict=True):
                if error is None:
                    waiting.future.set_result(value)
                else:
                    waiting.future.set_exception(error)

    def _gathered(self, first: _Waiting[Any]) -> list[_Waiting[Any]]:
        batch = [first]
        while len(batch) < _MOST_AT_ONCE:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._queue.put(None)  # the last thing in the queue, for the next look
                break
            batch.append(following)
        return batch

    def _together(self, works: Sequence[Work[Any]], *, turn: bool) -> list[Outcome]:
        """Commit them in one transaction; where that fails, each in its own, so that only the faulty one fails."""
        try:
            if not turn or not self._begin_patiently():
                return [(None, self._explain(TimeoutError(f"locked for {self._patience:g} s"))) for _ in works]
            return self._commit(works)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for it
            if len(works) == 1:
                return [(None, error)]
            return [outcome for work in works for outcome in self._together([work], turn=turn)]

    def _begin_patiently(self) -> bool:
        deadline = time.monotonic() + self._patience
        while not self._begin():
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _begin(self) -> bool:
        """Whether a transaction was begun; False: a program that knows nothing of our lock file writes."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if "locked" in str(error):
                return False
            raise self._explain(error) from error
        return True

    def _commit(self, works: Sequence[Work[Any]]) -> list[Outcome]:
        """Run all of them in the transaction that was begun, and commit; a refusal of one leaves the others alone."""
        before = self._connection.total_changes
        try:
            outcomes = [self._outcome(work) for work in works]
            self._connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):  # it may have been rolled back already
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._explain(error) from error
            raise
        if self._connection.total_changes != before:
            self._file.tell()
            self._committed()
        return outcomes

    def _outcome(self, work: Work[Any]) -> Outcome:
        try:
            return work(self._connection), None
        except StoreError as refusal:
            return None, refusal
