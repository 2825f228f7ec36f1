"""The store on SQLite: a file that several processes share, or memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from cloaca.errors import AlreadyExists, Conflict, NotFound, StoreUnavailable
from cloaca.resources.meta import DEFAULT_NAMESPACE, Ref, Resource, rfc3339
from cloaca.store.base import Change
from cloaca.store.sql.feed import Feed
from cloaca.store.sql.rows import check, from_row, metadata_columns, spec_json, status_json
from cloaca.store.sql.statements import named, read
from cloaca.store.sql.transactions import Transactions, unavailable
from cloaca.store.sql.url import MEMORY, SqliteUrl, parse_url

R = TypeVar("R", bound=Resource[Any, Any])
T = TypeVar("T")

Rows = list[Any]

SCHEMA_VERSION = 1
DELETIONS_KEPT = 10_000

_SQL = named(read("queries.sql"))


class SqlStore:
    """Resources and archives in one SQLite database. Thread-safe; may be used from several event loops."""

    def __init__(self, url: SqliteUrl) -> None:
        self._path = None if url.memory else Path(url.path)
        self._pid = os.getpid()
        self._closed = False
        writing = _connect(url, self._path)
        try:
            _migrate(writing, self._path, read_only=url.mode == "ro")
        except BaseException:
            writing.close()
            raise
        self._reading = writing if url.memory else _connect(url, self._path)
        self._transactions = Transactions(writing, self._path, self._committed)
        self._feed = Feed(None if url.memory else _connect(url, self._path), self._transactions.lock_file)
        self._read_lock = self._transactions.lock if url.memory else threading.Lock()

    @classmethod
    def open(cls, url: str) -> SqlStore:
        """The store at ``url`` (see ``parse_url``). Raises StoreUnavailable."""
        return cls(parse_url(url))

    def _committed(self) -> None:
        self._feed.committed()

    # --- reading

    async def get(self, kind: type[R], name: str, namespace: str = DEFAULT_NAMESPACE) -> R | None:
        row = self._one("get", {"kind": kind.KIND, "namespace": namespace, "name": name})
        return None if row is None else from_row(kind, row)

    async def list(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[R, ...]:
        parameters: dict[str, Any] = {"kind": kind.KIND, "namespace": namespace}
        conditions = ""
        for number, (key, value) in enumerate((labels or {}).items()):
            parameters |= {f"key{number}": key, f"value{number}": value}
            conditions += _SQL["has_label"].replace("{number}", str(number))
        rows = self._read(_SQL["list"].replace("{labels}", conditions), parameters)
        return tuple(from_row(kind, row) for row in rows)

    def _one(self, statement: str, parameters: Mapping[str, Any]) -> Any:
        return next(iter(self._read(_SQL[statement], parameters)), None)

    def _read(self, sql: str, parameters: Mapping[str, Any]) -> Rows:
        self._check_usable()
        with self._read_lock:
            try:
                return self._reading.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise unavailable(error, self._path) from error

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store was closed")
        if os.getpid() != self._pid:
            raise StoreUnavailable("this store was opened by the parent process: open one after the fork")

    # --- writing

    async def create(self, obj: R) -> R:
        check(obj)
        now = datetime.now(timezone.utc)
        made = obj.metadata.model_copy(update={"uid": str(uuid.uuid4()), "generation": 1, "creation_timestamp": now})
        values = {
            "uid": made.uid,
            "kind": obj.KIND,
            "namespace": made.namespace,
            "name": made.name,
            "created": rfc3339(now),
            **metadata_columns(obj),
            "spec": spec_json(obj),
            "status": status_json(obj),
        }

        def work(connection: sqlite3.Connection) -> int:
            if connection.execute(_SQL["get"], values).fetchone() is not None:
                raise AlreadyExists(f"{obj.ref} exists already")
            for owner in made.owner_references:
                if connection.execute(_SQL["exists"], {"uid": owner.uid}).fetchone() is None:
                    raise NotFound(f"{obj.ref}: its owner {owner.kind} {owner.name} is gone")
            version = _next(connection)
            connection.execute(_SQL["create"], {**values, "resource_version": version})
            _index(connection, obj, made.uid)
            return version

        version = await self._write(work)
        return obj.model_copy(update={"metadata": made.model_copy(update={"resource_version": str(version)})})

    async def update(self, obj: R) -> R:
        check(obj)
        columns, spec = metadata_columns(obj), spec_json(obj)

        def work(connection: sqlite3.Connection) -> None:
            seen = _current(connection, obj)
            uid, generation = seen[0], seen[4]
            if (columns["labels"], columns["annotations"], columns["owners"], spec) == (*seen[6:9], seen[9]):
                return
            connection.execute(
                _SQL["update"],
                {
                    "uid": uid,
                    "resource_version": _next(connection),
                    "generation": generation + (spec != seen[9]),
                    **columns,
                    "spec": spec,
                },
            )
            connection.execute(_SQL["drop_labels"], {"uid": uid})
            connection.execute(_SQL["drop_owners"], {"uid": uid})
            _index(connection, obj, uid)

        await self._write(work)
        return await self._again(obj)

    async def write_status(self, obj: R) -> R:
        status = status_json(obj)

        def work(connection: sqlite3.Connection) -> int:
            seen = _current(connection, obj)
            if seen[10] == status:
                return int(seen[3])
            version = _next(connection)
            values = {"uid": seen[0], "resource_version": version, "status": status}
            connection.execute(_SQL["write_status"], values)
            return version

        version = await self._write(work)
        if not obj.metadata.resource_version:
            return await self._again(obj)
        # the write was conditional, so all but the status is as the caller read it
        metadata = obj.metadata.model_copy(update={"resource_version": str(version)})
        return obj.model_copy(update={"metadata": metadata})

    async def _again(self, obj: R) -> R:
        fresh = await self.get(type(obj), obj.metadata.name, obj.metadata.namespace)
        if fresh is None:
            raise NotFound(f"{obj.ref} was deleted meanwhile")
        return fresh

    async def delete(self, ref: Ref, uid: str | None = None) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            named = {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name}
            seen = connection.execute(_SQL["get"], named).fetchone()
            if seen is None or (uid is not None and seen[0] != uid):
                return False
            for gone, kind, namespace, name in connection.execute(
                _SQL["with_everything_owned"], {"uid": seen[0]}
            ).fetchall():
                for statement in ("delete", "drop_labels", "drop_owners"):
                    connection.execute(_SQL[statement], {"uid": gone})
                tombstone = {"kind": kind, "namespace": namespace, "name": name}
                connection.execute(_SQL["record_deletion"], {**tombstone, "resource_version": _next(connection)})
            _forget_old_deletions(connection)
            return True

        return await self._write(work)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._check_usable()
        return await self._transactions.run(work)

    # --- changes

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        return self._changes()

    @asynccontextmanager
    async def _changes(self) -> AsyncIterator[AsyncIterator[Change]]:
        event = self._feed.subscribe()
        try:
            yield self._after(self._one("last_resource_version", {})[0], event)
        finally:
            self._feed.unsubscribe(event)

    async def _after(self, last: int, event: asyncio.Event) -> AsyncIterator[Change]:
        while True:
            event.clear()
            rows = self._read(_SQL["changes"], {"after": last})
            if rows and self._one("forgotten", {})[0] > last:
                rows = self._read(_SQL["everything"], {})
            for version, kind, namespace, name, deleted in rows:
                last = max(last, version)
                yield Change(ref=Ref(kind, namespace, name), deleted=bool(deleted))
            if not rows:
                await event.wait()

    # --- archives

    async def put_archive(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        await self._write(lambda connection: connection.execute(_SQL["put_archive"], {"digest": digest, "data": data}))
        return digest

    async def get_archive(self, digest: str) -> bytes | None:
        row = self._one("get_archive", {"digest": digest})
        return None if row is None else bytes(row[0])

    async def list_archives(self) -> tuple[str, ...]:
        return tuple(row[0] for row in self._read(_SQL["list_archives"], {}))

    async def delete_archive(self, digest: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            return connection.execute(_SQL["delete_archive"], {"digest": digest}).rowcount > 0

        return await self._write(work)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._feed.close()
        with self._read_lock:
            if self._path is not None:
                self._reading.close()
        self._transactions.close()


def _connect(url: SqliteUrl, path: Path | None) -> sqlite3.Connection:
    try:
        if path is None:
            connection = sqlite3.connect(MEMORY, isolation_level=None, check_same_thread=False)
        else:
            uri = f"{path.absolute().as_uri()}?mode={url.mode}"
            connection = sqlite3.connect(
                uri, uri=True, timeout=url.busy_timeout, isolation_level=None, check_same_thread=False
            )
            if url.mode != "ro":
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {url.synchronous}")
    except sqlite3.Error as error:
        raise unavailable(error, path) from error
    return connection


def _migrate(connection: sqlite3.Connection, path: Path | None, *, read_only: bool) -> None:
    """Bring the schema to our version, in one transaction. A newer one than ours is refused."""
    try:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"the database {path} was written by a newer version (schema {version}, ours is {SCHEMA_VERSION}): "
                "upgrade cloacina, or use another file"
            )
        if version == SCHEMA_VERSION:
            return
        if read_only:
            raise StoreUnavailable(f"the database {path} is empty or of an older version, and opened read-only")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:  # another process may have been quicker
                for statement in read("schema.sql").split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise unavailable(error, path) from error


def _current(connection: sqlite3.Connection, obj: Resource[Any, Any]) -> Any:
    """The row of ``obj``. Raises NotFound where it is gone or another one by now, Conflict where it was changed."""
    metadata = obj.metadata
    values = {"kind": obj.KIND, "namespace": metadata.namespace, "name": metadata.name}
    seen = connection.execute(_SQL["get"], values).fetchone()
    if seen is None or (metadata.uid and seen[0] != metadata.uid):
        raise NotFound(f"{obj.ref} is gone")
    if metadata.resource_version and str(seen[3]) != metadata.resource_version:
        raise Conflict(f"{obj.ref} changed since it was read: look again")
    return seen


def _next(connection: sqlite3.Connection) -> int:
    version: int = connection.execute(_SQL["next_resource_version"]).fetchone()[0]
    return version


def _index(connection: sqlite3.Connection, obj: Resource[Any, Any], uid: str) -> None:
    for key, value in obj.metadata.labels.items():
        connection.execute(_SQL["add_label"], {"key": key, "value": value, "uid": uid})
    for owner in obj.metadata.owner_references:
        connection.execute(_SQL["add_owner"], {"owner_uid": owner.uid, "uid": uid})


def _forget_old_deletions(connection: sqlite3.Connection) -> None:
    """Keep the newest deletions only; who reads from further back is shown everything."""
    row = connection.execute(_SQL["oldest_kept"], {"kept": DELETIONS_KEPT}).fetchone()
    if row is not None:
        connection.execute(_SQL["forget_deletions"], {"oldest": row[0]})
        connection.execute(_SQL["remember_forgotten"], {"oldest": row[0]})
