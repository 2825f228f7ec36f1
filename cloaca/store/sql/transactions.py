"""Write transactions on one SQLite connection: at once where nobody is in the way, else grouped into few commits.

A write that finds the database free is made by its own thread, in some 20 µs. Where another thread, process or program
is writing, it queues for one writer thread, which waits for its turn and puts all that has gathered into one commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from cloaca.errors import StoreError, StoreUnavailable
from cloaca.store.sql.batches import CLOSED, Batches, Gather, Outcome
from cloaca.store.sql.database import OneStatement, Work
from cloaca.store.sql.filelock import FileLock

T = TypeVar("T")

_PAUSE = 0.002  # seconds between two tries while a program that knows nothing of our lock file writes


class WritingConnection(sqlite3.Connection):
    """A connection whose statements may call ``given_out`` with the resource version that they give out."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cursor = self.cursor()  # for one statement after the other: making one costs a tenth of a write
        self._given: int | None = None
        self.create_function("given_out", 1, self._given_out)

    def give_out(self, statement: str, parameters: Mapping[str, Any], /) -> int | None:
        """Run one statement that gives out a resource version: which one; None: it found nothing to change."""
        return self._given if self._cursor.execute(statement, parameters).rowcount > 0 else None

    def _given_out(self, version: int) -> int:
        self._given = version
        return version


class Transactions:
    """The one connection that writes. Thread-safe."""

    def __init__(
        self,
        connection: WritingConnection,
        *,
        file: FileLock,
        patience: float,
        committed: Callable[[], None],
        explain: Callable[[Exception], StoreUnavailable],
    ) -> None:
        self.lock = threading.Lock()  # held by whoever uses the connection
        self.connection = (
            connection  # used with ``lock`` held; its own busy timeout is short: it may be used in an event loop
        )
        self._file = file
        self._patience = patience  # seconds until a write that gets no turn fails
        self._committed = committed
        self._explain = explain
        self._batches = Batches("cloaca-store", self._write)

    async def run(self, work: Work[T]) -> T:
        """What ``work`` returns, once it is committed. Raises what it raises, or StoreUnavailable."""
        outcome = self._at_once(work)
        return _value(outcome) if outcome is not None else await asyncio.wrap_future(self._batches.put(work))

    def run_here(self, work: Work[T]) -> T:
        """As ``run``, for a thread that may wait."""
        outcome = self._at_once(work)
        return _value(outcome) if outcome is not None else self._batches.put(work).result()

    def close(self) -> None:
        """End the writer thread and the connection; what was queued is written first."""
        self._batches.close()
        with self.lock:
            self.connection.close()
            self._file.close()

    def _at_once(self, work: Work[Any]) -> Outcome | None:
        """Its outcome; None: somebody else is writing."""
        if self._batches.unanswered or not self.lock.acquire(blocking=False):
            return None
        try:
            if self._batches.ended:
                raise StoreUnavailable(CLOSED)
            if not self._file.take():
                return None
            try:
                if type(work) is OneStatement:
                    return self._alone(work)
                return self._commit([work])[0] if self._begin() else None
            finally:
                self._file.give()
        finally:
            self.lock.release()

    def _alone(self, work: OneStatement) -> Outcome | None:
        """The outcome of a statement that is its own transaction; None: a program that knows no lock file writes."""
        before = self.connection.total_changes
        try:
            version = work(self.connection)
        except sqlite3.Error as error:
            if "locked" in str(error):
                return None
            raise self._explain(error) from error
        if self.connection.total_changes != before:
            self._tell()
        return version, None

    def _write(self, gather: Gather) -> Sequence[Outcome]:
        """In the writer thread: wait for our turn, commit what has gathered meanwhile."""
        with self.lock:
            turn = self._file.wait(self._patience)
            works = gather()
            try:
                return self._together(works, turn=turn) if works else ()
            finally:
                if turn:
                    self._file.give()

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
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if "locked" in str(error):
                return False
            raise self._explain(error) from error
        return True

    def _commit(self, works: Sequence[Work[Any]]) -> list[Outcome]:
        """Run all of them in the transaction that was begun, and commit; a refusal of one leaves the others alone."""
        before = self.connection.total_changes
        try:
            outcomes = [self._outcome(work) for work in works]
            self.connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):  # it may have been rolled back already
                self.connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._explain(error) from error
            raise
        if self.connection.total_changes != before:
            self._tell()
        return outcomes

    def _tell(self) -> None:
        """Let everybody know of changes."""
        self._file.tell()
        self._committed()

    def _outcome(self, work: Work[Any]) -> Outcome:
        try:
            return work(self.connection), None
        except StoreError as refusal:
            return None, refusal


def _value(outcome: Outcome) -> Any:
    value, error = outcome
    if error is not None:
        raise error
    return value
