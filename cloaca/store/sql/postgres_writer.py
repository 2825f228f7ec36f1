"""Write transactions on one PostgreSQL connection: whatever has gathered shares a commit, in pipelines of statements.

Writers take turns by the lock on one row (``take_turn`` in ``postgres.sql``), in all processes: what one reads in its
transaction nobody else changes, and resource versions become visible in their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import errors, pq

from cloaca.errors import StoreError, StoreUnavailable
from cloaca.store.sql.batches import Gather, Outcome
from cloaca.store.sql.database import Cursor, Work
from cloaca.store.sql.postgres_session import SQL, Psycopg, Session, execute, explained, idle_timeout
from cloaca.store.sql.url import PostgresUrl

_TRIES = 5  # of a transaction that the server ends because of what others do at the same time
_PATIENCE = 5.0  # seconds in which to learn how a commit ended whose answer was lost
_PAUSE = 0.05

_OTHERS = (errors.SerializationFailure, errors.DeadlockDetected)
_FOR_ALL = (*_OTHERS, errors.LockNotAvailable, errors.ReadOnlySqlTransaction, errors.DiskFull)


class _Attempt:
    """How far a transaction came."""

    transaction: str | None = None  # its id; None: it has none yet
    outcomes: list[Outcome] | None = None  # None: COMMIT was not sent yet


class Writer:
    """Commits works, in one thread."""

    def __init__(self, session: Session, url: PostgresUrl, channel: str, committed: Callable[[], None]) -> None:
        self._session = session
        self._url = url
        self._channel = channel
        self._committed = committed

    def write(self, gather: Gather) -> Sequence[Outcome]:
        """The outcome of each work that waits by now, once all that could be are committed."""
        return self._together(gather())

    def _together(self, works: Sequence[Work[Any]]) -> Sequence[Outcome]:
        """Commit them in one transaction; where that fails, each in its own, so that only the faulty one fails."""
        if not works:
            return ()
        try:
            return self._commit(works)
        except StoreUnavailable as error:  # whatever it is, the next one would meet it as well
            return [(None, error)] * len(works)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for it
            if len(works) == 1:
                return [(None, explained(error, self._url) if isinstance(error, psycopg.Error) else error)]
            return [outcome for work in works for outcome in self._together([work])]

    def _commit(self, works: Sequence[Work[Any]]) -> list[Outcome]:
        """Commit them together. Raises StoreUnavailable where no work is to blame."""
        tries, lost, freed = 0, False, False
        while True:
            attempt = _Attempt()
            try:
                return self._attempt(works, attempt)
            except psycopg.Error as error:
                broken = self._session.process is None
                self._session.discard()
                tries += 1
                if broken:
                    outcomes = self._outcomes(attempt, error)
                    if outcomes is not None:
                        return outcomes
                    if lost:
                        raise explained(error, self._url) from error
                    lost = True  # nothing was made; the connection may have been stale only: once more
                elif isinstance(error, errors.LockNotAvailable) and not freed and self._end_stopped():
                    freed = True
                elif isinstance(error, _FOR_ALL) and (not isinstance(error, _OTHERS) or tries == _TRIES):
                    raise explained(error, self._url) from error
                elif not isinstance(error, _OTHERS):
                    raise
            except BaseException:
                self._session.discard()  # which ends its transaction
                raise

    def _end_stopped(self) -> bool:
        """End whoever stopped in the middle of its write, if there is one."""
        try:
            ended = execute(self._session.connection(), SQL["end_stopped"], {"idle_timeout": idle_timeout(self._url)})
            return ended.fetchone() is not None
        except (StoreUnavailable, psycopg.Error):  # may not, or cannot: then the wait stays without success
            self._session.discard()
            return False

    def _attempt(self, works: Sequence[Work[Any]], attempt: _Attempt) -> list[Outcome]:
        connection = self._session.connection()
        with connection.pipeline() as pipeline:  # a statement is waited for only where somebody reads its rows
            connection.execute(SQL["begin"])
            within = _Within(connection, pipeline)
            before, attempt.transaction = _one(within.execute(SQL["take_turn"], {}))
            outcomes = [_outcome(work, within) for work in works]
            execute(connection, SQL["tell"], {"channel": self._channel, "before": before})
            attempt.outcomes = outcomes
            connection.execute(SQL["commit"])
        if connection.info.transaction_status is not pq.TransactionStatus.IDLE:
            raise psycopg.OperationalError("the transaction did not end with its commit")
        self._committed()
        return outcomes

    def _outcomes(self, attempt: _Attempt, error: psycopg.Error) -> list[Outcome] | None:
        """What a transaction gave whose connection was lost; None: it was not committed.

        Raises StoreUnavailable where that cannot be learned in time.
        """
        if attempt.outcomes is None or attempt.transaction is None:
            return None
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                ended = _one(execute(self._session.connection(), SQL["ended"], {"transaction": attempt.transaction}))[0]
            except (StoreUnavailable, psycopg.Error):
                self._session.discard()
                ended = None
            if ended == "committed":
                self._committed()
                return attempt.outcomes
            if ended == "aborted":
                return None
            if time.monotonic() > deadline:
                unknown = explained(error, self._url)
                raise StoreUnavailable(f"{unknown}; whether the last write was made is unknown: look again") from error
            time.sleep(_PAUSE)


class _Within:
    """Where the works' statements run."""

    def __init__(self, connection: Psycopg, pipeline: psycopg.Pipeline) -> None:
        self._connection = connection
        self._pipeline = pipeline

    def execute(self, statement: str, parameters: Mapping[str, Any], /) -> Cursor:
        return _Rows(execute(self._connection, statement, parameters), self._pipeline)

    def give_out(self, statement: str, parameters: Mapping[str, Any], /) -> int | None:
        row = self.execute(statement, parameters).fetchone()
        return None if row is None else int(row[0])


class _Rows:
    """What a statement gave, once somebody reads it.

    Reads by a Sync, where psycopg would only flush: after a Sync the server counts the session as idle in its
    transaction, and so ends that of a writer that was stopped there.
    """

    def __init__(self, cursor: psycopg.Cursor[tuple[Any, ...]], pipeline: psycopg.Pipeline) -> None:
        self._cursor = cursor
        self._pipeline = pipeline

    def fetchone(self) -> Any:
        self._arrive()
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        self._arrive()
        return self._cursor.fetchall()

    def _arrive(self) -> None:
        if self._cursor.pgresult is None:
            self._pipeline.sync()


def _outcome(work: Work[Any], within: _Within) -> Outcome:
    try:
        return work(within), None
    except StoreError as refusal:
        return None, refusal


def _one(cursor: Cursor) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = cursor.fetchone()
    if row is None:
        raise psycopg.OperationalError("a row that every store has is missing")
    return row
