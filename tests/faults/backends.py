"""Where the objects of a scenario live, and how each process reaches them. Injects nothing.

Answers and news of a server come in their own time. So each says whether something is still to come of what was
written; until it has come the simulated clock stands.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import postgres_server
from cluster import binaries
from cluster.control_plane import control_plane
from emptying import remove_everything

from cloaca.resources import STORED_KINDS, Ref, Resource
from cloaca.store import Store, open_store
from cloaca.store.base import Change
from cloaca.store.kubernetes.api import Api, Object
from cloaca.store.kubernetes.config import KubernetesUrl
from cloaca.store.kubernetes.feed import Reflector
from cloaca.store.kubernetes.store import KubernetesStore
from cloaca.store.sql.postgres import PostgresDatabase
from cloaca.store.sql.store import SqlStore
from cloaca.store.sql.url import PostgresUrl, parse_url

if TYPE_CHECKING:
    from faults.clock import VirtualLoop

SOON = 5.0  # real seconds in which a server tells whoever follows
COLLECTED = (
    120.0  # real seconds in which a cluster removes what belonged to what was deleted; of new kinds it hears late
)

_IN_MEMORY = "/dev/shm"  # processes die here, not the machine: what was committed is there without a disk

_numbers = itertools.count(1)


class Unavailable(Exception):
    """It cannot be had on this machine; the text says why, and what to do."""


class Backend(Protocol):
    """The place of one case."""

    waits: bool
    """Whether a call waits for another process."""

    async def open(self, component: str) -> Store:
        """The store, as a new process of ``component`` opens it."""
        ...

    async def let_go(self, store: Store) -> None:
        """The process that had opened it is dead."""
        ...

    def wrote(self, ref: Ref, after: Resource[Any, Any] | None) -> None:
        """A write was answered. ``after`` None: it was deleted."""
        ...

    async def hear(self, follower: object, changes: AsyncIterator[Change]) -> Change:
        """The next one of ``changes``, which ``follower`` follows."""
        ...

    def to_come(self) -> float:
        """Real seconds in which something will come of what was written; 0: everybody knows all of it."""
        ...

    async def remove(self) -> None:
        """The case is over, and all stores are closed."""
        ...


class Memory:
    """One SQLite store in memory, which outlives every process."""

    waits = False

    def __init__(self, loop: VirtualLoop) -> None:
        self._store: Store | None = None

    async def open(self, component: str) -> Store:
        if self._store is None:
            self._store = await open_store(":memory:")
        return self._store

    async def let_go(self, store: Store) -> None:
        return None

    def wrote(self, ref: Ref, after: Any) -> None:
        return None

    async def hear(self, follower: object, changes: AsyncIterator[Change]) -> Change:
        return await changes.__anext__()

    def to_come(self) -> float:
        return 0.0

    async def remove(self) -> None:
        if self._store is not None:
            await self._store.close()


class File(Memory):
    """A SQLite file, which every process opens for itself: what outlives a process is what was committed."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(loop)
        folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="faults-", dir=folder))

    async def open(self, component: str) -> Store:
        return await open_store(f"sqlite:///{self._folder}/store.db")

    async def let_go(self, store: Store) -> None:
        await store.close()

    async def remove(self) -> None:
        shutil.rmtree(self._folder)


class _Follower:
    """How much of what was written a follower has read."""

    def __init__(self) -> None:
        self.waits = False
        self.seen = -1


_FOLLOWER: ContextVar[_Follower | None] = ContextVar("follower", default=None)


class Postgres:
    """A schema of its own on a PostgreSQL server; every process has connections of its own."""

    waits = True

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._server = _postgres()
        self._schema = f"faults_{os.getpid()}_{next(_numbers)}"
        self._written = 0
        self._followers: dict[object, _Follower] = {}

    async def open(self, component: str) -> Store:
        url = parse_url(self._server.url(self._schema, pool_size="2"))
        assert isinstance(url, PostgresUrl)
        return SqlStore(await self._loop.run_in_executor(None, lambda: _Observed(url, self)))

    async def let_go(self, store: Store) -> None:
        await store.close()

    def wrote(self, ref: Ref, after: Any) -> None:
        self._written += 1

    async def hear(self, follower: object, changes: AsyncIterator[Change]) -> Change:
        known = self._followers.setdefault(follower, _Follower())
        _FOLLOWER.set(known)
        known.waits = True
        try:
            return await changes.__anext__()
        finally:
            known.waits = False
            _FOLLOWER.set(None)

    async def read(self, rows: Callable[[], Any]) -> Any:
        """What ``rows`` gives. A read that is begun after a write was answered sees it."""
        follower, written = _FOLLOWER.get(), self._written
        self._loop.busy += 1
        try:
            found = await rows()
        finally:
            self._loop.busy -= 1
        if follower is not None:
            follower.seen = written
        return found

    def to_come(self) -> float:
        behind = any(known.waits and known.seen < self._written for known in self._followers.values())
        return SOON if behind else 0.0

    async def remove(self) -> None:
        import psycopg  # an extra

        with psycopg.connect(self._server.admin, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE".encode())


class _Observed(PostgresDatabase):
    """A database that says when it reads."""

    def __init__(self, url: PostgresUrl, backend: Postgres) -> None:
        super().__init__(url)
        self._backend = backend

    async def read(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        real = super().read
        found: list[Any] = await self._backend.read(lambda: real(statement, parameters))
        return found


class _Watching(KubernetesStore):
    """A store that lets its watches be seen."""

    def __init__(self, api: Api, wanted: KubernetesUrl) -> None:
        super().__init__(api, wanted)
        self.watches: set[tuple[str, Reflector]] = set()

    async def _follow(
        self, saw: Callable[[Ref, Object, bool], None], *, names_only: bool
    ) -> tuple[list[Reflector], list[asyncio.Task[None]]]:
        reflectors, tasks = await super()._follow(saw, names_only=names_only)
        for kind, reflector, task in zip(STORED_KINDS, reflectors, tasks, strict=True):  # of one namespace
            watch = (kind.KIND, reflector)
            self.watches.add(watch)
            task.add_done_callback(lambda _, watch=watch: self.watches.discard(watch))  # type: ignore[misc]  # bound now
        return reflectors, tasks


class Kubernetes:
    """All our objects in a namespace of an API server. The operator reads from memory, pollers and runs ask, as on a
    cluster. What belongs to something that was deleted is removed by the cluster."""

    waits = True

    def __init__(self, loop: VirtualLoop) -> None:
        self._kubeconfig = _kubeconfig()
        self._open: set[_Watching] = set()
        self._newest: dict[str, int] = {}  # by kind, the highest resource version that was answered
        self._owned: dict[str, set[Ref]] = {}  # by uid of the owner
        self._uids: dict[Ref, str] = {}
        self._gone: set[Ref] = set()  # deleted
        self._to_collect: set[Ref] = set()  # what belonged to those
        self._dead: set[str] = set()  # uids of both

    async def open(self, component: str) -> Store:
        options = "namespace=default"
        if component in ("operator", "judge"):
            options += "&cached=true"
        store = await _Watching.open(f"kubernetes://{self._kubeconfig}?{options}")
        assert isinstance(store, _Watching)
        first = not self._open
        self._open.add(store)
        if first:
            await remove_everything(store)  # what the last case left
        return store

    async def let_go(self, store: Store) -> None:
        assert isinstance(store, _Watching)
        self._open.discard(store)
        await store.close()

    def wrote(self, ref: Ref, after: Resource[Any, Any] | None) -> None:
        if after is None:
            self._gone.add(ref)
            self._collect(self._uids.get(ref, ""))
            return
        self._gone.discard(ref)
        self._to_collect.discard(ref)
        self._uids[ref] = after.metadata.uid
        self._newest[ref.kind] = max(self._newest.get(ref.kind, 0), int(after.metadata.resource_version))
        for owner in after.metadata.owner_references:
            self._owned.setdefault(owner.uid, set()).add(ref)
            if owner.uid in self._dead:
                self._collect(owner.uid)

    def _collect(self, uid: str) -> None:
        self._dead.add(uid)
        for ref in self._owned.pop(uid, ()):
            self._to_collect.add(ref)
            self._collect(self._uids.get(ref, ""))

    async def hear(self, follower: object, changes: AsyncIterator[Change]) -> Change:
        return await changes.__anext__()

    def to_come(self) -> float:
        watches = [watch for store in self._open for watch in store.watches]
        if any(_knows(watch, ref) for ref in self._to_collect for watch in watches):
            return COLLECTED
        if any(_knows(watch, ref) for ref in self._gone for watch in watches):
            return SOON
        if any(int(reflector._version or 0) < self._newest.get(kind, 0) for kind, reflector in watches):
            return SOON
        return 0.0

    async def remove(self) -> None:
        return None  # the next case empties it


def _knows(watch: tuple[str, Reflector], ref: Ref) -> bool:
    kind, reflector = watch
    return kind == ref.kind and (ref.namespace, ref.name) in reflector._known


BACKENDS: Mapping[str, Callable[[VirtualLoop], Backend]] = {
    "memory": Memory,
    "file": File,
    "postgres": Postgres,
    "kubernetes": Kubernetes,
}

_servers = ExitStack()  # of this process; they end with it
atexit.register(_servers.close)
_given: list[Path] = []  # a kubeconfig, if somebody else keeps an API server


def missing(on: str) -> str:
    """Why that backend cannot be had on this machine; empty: it can."""
    try:
        if on == "postgres":
            _postgres()
        elif on == "kubernetes" and not _given:
            _programs()
    except Unavailable as why:
        return str(why)
    return ""


def use(kubeconfig: Path) -> None:
    """Have cases on this API server, and none of our own. All our objects in its namespace ``default`` go."""
    _given[:] = [kubeconfig]


@functools.cache
def _postgres() -> postgres_server.Shared:
    if postgres_server.binaries() is None:
        raise Unavailable(postgres_server.HOW_TO_GET_ONE)
    return postgres_server.shared()


def _kubeconfig() -> Path:
    return _given[0] if _given else _own_cluster()


def _programs() -> Mapping[str, Path]:
    try:
        return binaries.find(*binaries.CONTROL_PLANE)
    except binaries.Unavailable as error:
        raise Unavailable(str(error)) from error


@functools.cache
def _own_cluster() -> Path:
    folder = Path(_servers.enter_context(tempfile.TemporaryDirectory(prefix="faults-cluster-")))
    plane = _servers.enter_context(control_plane(_programs(), folder))
    plane.install_crds()
    return plane.kubeconfig
