"""The store on a SQL database: what reads and writes mean, in statements that every database understands."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timezone
from typing import Any, TypeVar

from cloaca.errors import AlreadyExists, Conflict, NotFound, StoreUnavailable
from cloaca.resources.meta import Resource
from cloaca.resources.recorded import RecordedRun, read_run
from cloaca.resources.ref import DEFAULT_NAMESPACE, Ref, rfc3339
from cloaca.resources.run import WorkflowRun
from cloaca.store import reading
from cloaca.store.base import Change
from cloaca.store.oddities import Oddities
from cloaca.store.sql.database import Connection, Database, OneStatement, Work
from cloaca.store.sql.rows import (
    Row,
    check,
    from_row,
    may_exist,
    metadata_columns,
    row_json,
    same_json,
    spec_json,
    status_json,
    written,
)
from cloaca.store.sql.sqlite import SqliteDatabase
from cloaca.store.sql.statements import named, read
from cloaca.store.sql.url import SqliteUrl, parse_url

R = TypeVar("R", bound=Resource[Any, Any])

DELETIONS_KEPT = 10_000

_SHARED = named(read("queries.sql"))


class SqlStore:
    """Resources and archives in one SQL database. Thread-safe; may be used from several event loops."""

    waits = False
    """Whether a call waits for a server."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = {**_SHARED, **database.statements}
        self.waits = database.waits
        self.oddities = Oddities()
        """The objects that cannot be read."""

    @classmethod
    async def open(cls, url: str) -> SqlStore:
        """The store at ``url`` (see ``parse_url``). Raises StoreUnavailable."""
        if isinstance(parse_url(url), SqliteUrl):
            return cls.open_here(url)
        return await asyncio.to_thread(cls.open_here, url)

    @classmethod
    def open_here(cls, url: str) -> SqlStore:
        """As ``open``, in a thread that waits for a server."""
        parsed = parse_url(url)
        if isinstance(parsed, SqliteUrl):
            return cls(SqliteDatabase(parsed))
        try:
            from cloaca.store.sql.postgres import PostgresDatabase  # an extra, which not everybody has
        except ImportError as missing:
            raise StoreUnavailable(
                f"PostgreSQL needs the package psycopg ({missing}): run pip install 'cloacina[postgres]'"
            ) from missing
        return cls(PostgresDatabase(parsed))

    # --- reading

    async def get(self, kind: type[R], name: str, namespace: str = DEFAULT_NAMESPACE) -> R | None:
        if not may_exist(name=name, namespace=namespace):
            return None
        row = await self._one("get", {"kind": kind.KIND, "namespace": namespace, "name": name})
        return None if row is None else reading.read(kind, row_json(row), self.oddities)

    def run_here(self, name: str, namespace: str) -> RecordedRun | None:
        """As in ``RunStore``."""
        if not may_exist(name=name, namespace=namespace):
            return None
        return _recorded(self._database.read_here(self._sql["get"], _by_name(Ref(WorkflowRun.KIND, namespace, name))))

    async def list(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[R, ...]:
        return tuple(await self.each(kind, namespace, labels))

    async def each(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[R]:
        if not may_exist(namespace=namespace, labels=labels):
            return iter(())
        statement, parameters = self._sql["list"], {"kind": kind.KIND, "namespace": namespace}
        if labels:
            chosen = []
            for number, (key, value) in enumerate(labels.items()):
                parameters |= {f"key{number}": key, f"value{number}": value}
                chosen.append(self._sql["has_label"].replace("{number}", str(number)))
            statement = self._sql["list_by_labels"].replace("{chosen}", " INTERSECT ".join(chosen))
        rows = await self._database.read(statement, parameters)
        return reading.readable(kind, map(row_json, rows), self.oddities)

    async def unfinished_runs(self) -> tuple[WorkflowRun, ...]:
        rows = await self._database.read(self._sql["unfinished_runs"], {})
        runs = reading.readable(WorkflowRun, map(row_json, rows), self.oddities)
        return tuple(run for run in runs if not run.status.phase.finished)

    async def _one(self, statement: str, parameters: Mapping[str, Any]) -> Any:
        return next(iter(await self._database.read(self._sql[statement], parameters)), None)

    # --- writing

    async def create(self, obj: R) -> R:
        work, made = self._creation(obj, status_json(obj))
        return made(await self._database.write(work))

    def create_here(self, obj: R, status: str) -> R:
        """As in ``BlockingStore``."""
        work, made = self._creation(obj, status)
        return made(self._database.write_here(work))

    def _creation(self, obj: R, status: str) -> tuple[Work[int | None], Callable[[int | None], R]]:
        """What makes ``obj``, and what makes of the resource version that this returned the object as it stands."""
        check(obj)
        now = datetime.now(timezone.utc)
        uid = _new_uid()
        values = {
            "uid": uid,
            "kind": obj.KIND,
            "namespace": obj.metadata.namespace,
            "name": obj.metadata.name,
            "created": rfc3339(now),
            **metadata_columns(obj),
            "spec": spec_json(obj),
            "status": status,
        }
        insert = OneStatement(self._sql["create"], values)

        def insert_owned(connection: Connection) -> int | None:
            for owner in obj.metadata.owner_references:
                if connection.execute(self._sql["exists"], {"uid": owner.uid}).fetchone() is None:
                    raise NotFound(f"{obj.ref}: its owner {owner.kind} {owner.name} is gone")
            return insert(connection)

        def made(version: int | None) -> R:
            if version is None:
                raise AlreadyExists(f"{obj.ref} exists already")
            filled = {
                "uid": uid,
                "resource_version": str(version),
                "generation": 1,
                "creation_timestamp": now,
                "deletion_timestamp": None,
            }
            return obj.model_copy(update={"metadata": obj.metadata.model_copy(update=filled)})

        return insert_owned if obj.metadata.owner_references else insert, made

    async def update(self, obj: R) -> R:
        check(obj)
        metadata, columns, spec = obj.metadata, metadata_columns(obj), spec_json(obj)

        def work(connection: Connection) -> Row:
            seen = self._current(connection, obj.ref, metadata.uid, metadata.resource_version)
            changed = not same_json(spec, seen.spec)
            row = Row(**{**seen._asdict(), **columns, "spec": spec if changed else seen.spec})
            if row == seen:
                return seen
            row = row._replace(generation=seen.generation + changed, resource_version=self._next(connection))
            connection.execute(self._sql["update"], row._asdict())
            return row

        return from_row(type(obj), await self._database.write(work))

    async def write_status(self, obj: R) -> R:
        metadata = obj.metadata
        work = self._status_write(obj.ref, metadata.uid, metadata.resource_version, status_json(obj))
        return written(obj, await self._database.write(work))

    def record_here(self, ref: Ref, uid: str, version: str, status: str) -> str:
        """As in ``RunStore``."""
        values = {"uid": uid, "seen": int(version), "status": status}
        given = self._database.write_here(OneStatement(self._sql["record"], values))
        if given is not None:
            return str(given)
        # what it was: gone, changed, or nothing to write after all
        return str(self._database.write_here(self._status_write(ref, uid, version, status)).resource_version)

    def _status_write(self, ref: Ref, uid: str, version: str, status: str) -> Work[Row]:
        def work(connection: Connection) -> Row:
            seen = self._current(connection, ref, uid, version)
            if seen.status == status:
                return seen
            row = seen._replace(status=status, resource_version=self._next(connection))
            values = {"uid": row.uid, "resource_version": row.resource_version, "status": status}
            connection.execute(self._sql["write_status"], values)
            return row

        return work

    async def delete(self, ref: Ref, uid: str | None = None) -> bool:
        if not may_exist(name=ref.name, namespace=ref.namespace):
            return False

        def work(connection: Connection) -> bool:
            seen = connection.execute(self._sql["is_taken"], _by_name(ref)).fetchone()
            if seen is None or (uid is not None and seen[0] != uid):
                return False
            for gone, *place in connection.execute(self._sql["with_everything_owned"], {"uid": seen[0]}).fetchall():
                deletion = {**_by_name(Ref(*place)), "resource_version": self._next(connection)}
                connection.execute(self._sql["delete"], {"uid": gone})
                connection.execute(self._sql["record_deletion"], deletion)
            self._forget_old_deletions(connection)
            return True

        return await self._database.write(work)

    # --- changes

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        return self._changes()

    @asynccontextmanager
    async def _changes(self) -> AsyncIterator[AsyncIterator[Change]]:
        event = self._database.subscribe()
        try:
            yield self._after((await self._one("last_resource_version", {}))[0], event)
        finally:
            self._database.unsubscribe(event)

    async def _after(self, last: int, event: asyncio.Event) -> AsyncIterator[Change]:
        while True:
            event.clear()
            rows = await self._database.read(self._sql["changes"], {"after": last})
            if rows and (await self._one("forgotten", {}))[0] > last:
                rows = await self._database.read(self._sql["everything"], {})
            for version, kind, namespace, name, deleted in rows:
                last = max(last, version)
                yield Change(ref=Ref(kind, namespace, name), deleted=bool(deleted))
            if not rows:
                await event.wait()

    # --- archives

    async def put_archive(self, data: bytes) -> str:
        values = {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "data": data}

        def work(connection: Connection) -> None:
            connection.execute(self._sql["put_archive"], values)

        await self._database.write(work)
        return str(values["digest"])

    async def get_archive(self, digest: str) -> bytes | None:
        if not may_exist(digest=digest):
            return None
        row = await self._one("get_archive", {"digest": digest})
        return None if row is None else bytes(row[0])

    async def list_archives(self) -> tuple[str, ...]:
        return tuple(row[0] for row in await self._database.read(self._sql["list_archives"], {}))

    async def delete_archive(self, digest: str) -> bool:
        if not may_exist(digest=digest):
            return False

        def work(connection: Connection) -> bool:
            return connection.execute(self._sql["delete_archive"], {"digest": digest}).fetchone() is not None

        return await self._database.write(work)

    async def close(self) -> None:
        await self._database.close()

    def close_here(self) -> None:
        """As in ``RunStore``."""
        self._database.close_here()

    # --- inside a transaction

    def _current(self, connection: Connection, ref: Ref, uid: str, version: str) -> Row:
        """The row of ``ref``. Raises NotFound where it is gone or another one by now, Conflict where it was changed;
        empty: whichever one, and whatever became of it."""
        found = connection.execute(self._sql["get"], _by_name(ref)).fetchone()
        if found is None or (uid and found[0] != uid):
            raise NotFound(f"{ref} is gone")
        row = Row._make(found)
        if version and str(row.resource_version) != version:
            raise Conflict(f"{ref} changed since it was read: look again")
        return row

    def _next(self, connection: Connection) -> int:
        version: int = connection.execute(self._sql["next_resource_version"], {}).fetchone()[0]
        return version

    def _forget_old_deletions(self, connection: Connection) -> None:
        """Keep the newest deletions only; who reads from further back is shown everything."""
        row = connection.execute(self._sql["oldest_kept"], {"kept": DELETIONS_KEPT}).fetchone()
        if row is not None:
            connection.execute(self._sql["forget_deletions"], {"oldest": row[0]})
            connection.execute(self._sql["remember_forgotten"], {"oldest": row[0]})


def _new_uid() -> str:
    """A UUID of chance alone (version 4), in a third of the time that uuid.uuid4 takes to become a text."""
    chance = os.urandom(16).hex()
    variant = "89ab"[int(chance[16], 16) & 3]
    return f"{chance[:8]}-{chance[8:12]}-4{chance[13:16]}-{variant}{chance[17:20]}-{chance[20:]}"


def _recorded(rows: Sequence[Any]) -> RecordedRun | None:
    return read_run(json.loads(row_json(rows[0]))) if rows else None


def _by_name(ref: Ref) -> dict[str, str]:
    return {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name}
