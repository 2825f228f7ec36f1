"""PostgreSQL as the store's database: a schema that any number of processes and machines share.

docs/decisions/0017 says how writers take turns, why resource versions are seen in their order, and what is durable.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import psycopg

from cloaca.errors import StoreUnavailable
from cloaca.store.sql.batches import CLOSED, Batches, Gather, Outcome
from cloaca.store.sql.database import Work
from cloaca.store.sql.migrations import migrations_of, pending
from cloaca.store.sql.postgres_listener import Listener
from cloaca.store.sql.postgres_session import SQL, Psycopg, Session, execute, explained, quoted
from cloaca.store.sql.postgres_writer import Writer
from cloaca.store.sql.subscribers import Subscribers
from cloaca.store.sql.url import PostgresUrl

T = TypeVar("T")

MIGRATIONS = migrations_of("postgres")

_LONGEST_CHANNEL = 63  # bytes; tenants whose long names begin alike wake each other, no more


class PostgresDatabase:
    """Threads of its own talk to the server: one writes, some read, one listens once somebody subscribes."""

    waits = True
    statements: Mapping[str, str] = SQL

    def __init__(self, url: PostgresUrl, migrations: Sequence[str] | None = None) -> None:
        self._url = url
        self._pid = os.getpid()
        self._closing = threading.Lock()
        self._closed = False
        self._subscribers = Subscribers()
        self._sessions = threading.local()
        self._opened: list[Session] = []
        writing = self._session()
        try:
            _migrate(writing.connection(), url, migrations or MIGRATIONS)
        except BaseException as error:
            writing.discard()
            if isinstance(error, psycopg.Error):
                raise explained(error, url) from error
            raise
        channel = f"cloacina_{url.schema}".encode()[:_LONGEST_CHANNEL].decode(errors="ignore")
        writer = Writer(writing, url, channel, self._subscribers.wake)
        self._writing = Batches("cloaca-write", writer.write)
        self._reading = Batches("cloaca-read", self._read, most=1, threads=url.pool_size)
        self._listener = Listener(url, channel, self._subscribers.wake, lambda: writing.process)

    async def read(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """As in the protocol."""
        return await asyncio.wrap_future(self._read_soon(statement, parameters))

    def read_here(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """As in the protocol."""
        return self._read_soon(statement, parameters).result()

    def _read_soon(self, statement: str, parameters: Mapping[str, Any]) -> Future[list[Any]]:
        self._check_usable()

        def work(connection: Any) -> list[Any]:
            rows: list[Any] = execute(connection, statement, parameters).fetchall()
            return rows

        return self._reading.put(work)

    async def write(self, work: Work[T]) -> T:
        """As in the protocol."""
        self._check_usable()
        return await asyncio.wrap_future(self._writing.put(work))

    def write_here(self, work: Work[T]) -> T:
        """As in the protocol."""
        self._check_usable()
        return self._writing.put(work).result()

    def subscribe(self) -> asyncio.Event:
        """As in the protocol."""
        self._check_usable()
        self._listener.start()
        return self._subscribers.add()

    def unsubscribe(self, event: asyncio.Event) -> None:
        """As in the protocol."""
        self._subscribers.discard(event)

    async def close(self) -> None:
        """As in the protocol."""
        await asyncio.to_thread(self.close_here)

    def close_here(self) -> None:
        """As in the protocol. In a forked child it touches nothing: all of it is the parent's."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        if os.getpid() != self._pid:
            return
        self._listener.close()
        self._writing.close()
        self._reading.close()
        for session in self._opened:
            session.discard()
        self._subscribers.wake()

    def _session(self) -> Session:
        session = Session(self._url)
        self._opened.append(session)
        return session

    def _read(self, gather: Gather) -> Sequence[Outcome]:
        """In a thread of its own: one read, which is tried again where the connection had become stale."""
        outcomes: list[Outcome] = []
        for work in gather():
            try:
                try:
                    outcomes.append((self._read_once(work), None))
                except psycopg.OperationalError:
                    outcomes.append((self._read_once(work), None))
            except psycopg.Error as error:
                outcomes.append((None, explained(error, self._url)))
            except StoreUnavailable as error:
                outcomes.append((None, error))
        return outcomes

    def _read_once(self, work: Work[T]) -> T:
        session: Session | None = getattr(self._sessions, "reading", None)
        if session is None:
            session = self._sessions.reading = self._session()
        try:
            connection: Any = session.connection()  # a read calls nothing that psycopg's own connection has not
            return work(connection)
        except psycopg.Error:
            session.discard()
            raise

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailable(CLOSED)
        if os.getpid() != self._pid:
            raise StoreUnavailable("this store was opened by the parent process: open one after the fork")


def _migrate(connection: Psycopg, url: PostgresUrl, migrations: Sequence[str]) -> None:
    """Bring the schema to our version, in one transaction. A newer one than ours is refused, and left alone."""
    where = f"{url.where} (schema {url.schema})"
    if not pending(migrations, _version(connection, url), where):
        return  # without a write: it may be a database that takes none
    with connection.transaction():
        execute(connection, SQL["migration_lock"], {"lock": f"cloacina {url.schema}"})
        if execute(connection, SQL["has_schema"], {"schema": url.schema}).fetchone() is None:
            connection.execute(f"CREATE SCHEMA {quoted(url.schema)}".encode())
        if execute(connection, SQL["has_migrations"], {"schema": url.schema}).fetchone() is None:
            execute(connection, SQL["make_migrations"], {})
        for number, text in pending(migrations, _version(connection, url), where):  # others may have been quicker
            connection.execute(text.encode())
            execute(connection, SQL["migrated"], {"version": number})


def _version(connection: Psycopg, url: PostgresUrl) -> int:
    if execute(connection, SQL["has_migrations"], {"schema": url.schema}).fetchone() is None:
        return 0
    row = execute(connection, SQL["version"], {}).fetchone()
    return 0 if row is None else int(row[0])
