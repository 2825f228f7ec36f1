"""Keep what the API server has of one resource in memory, by listing it once and watching it. Writes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from cloaca.errors import StoreUnavailable

log = logging.getLogger("cloacina.watched")

Object = dict[str, Any]
Key = tuple[str, str]  # namespace, name

PAGE = 500
SILENCE = 300  # seconds after which the server ends a watch, so that a dead connection is noticed
PAUSES = (0.2, 1.0, 3.0, 10.0)  # seconds before the next try while the server is away


class Expired(Exception):
    """The resource version is too old: list again."""


class Cluster(Protocol):
    """What we ask of an API server. Every call may raise StoreUnavailable."""

    async def request(
        self, method: str, path: str, *, body: Object | None = None, params: Mapping[str, str] | None = None
    ) -> Object:
        """The answer. Raises AlreadyExists, NotFound, Conflict, Invalid."""
        ...

    def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[Object]:
        """The events after ``resourceVersion``. Raises Expired."""
        ...


class Watched:
    """The objects of one resource that a selector takes. Belongs to one event loop."""

    def __init__(
        self,
        cluster: Cluster,
        path: str,
        selector: Mapping[str, str],
        changed: Callable[[Object | None, Object | None], None],
    ) -> None:
        """``changed`` is called with what was and what is, after the fact; None: nothing."""
        self._cluster = cluster
        self._path = path
        self._selector = dict(selector)
        self._changed = changed
        self._objects: dict[Key, Object] = {}
        self.listed = asyncio.Event()

    def get(self, namespace: str, name: str) -> Object | None:
        """As last seen; whoever needs more asks the server."""
        return self._objects.get((namespace, name))

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)

    def saw(self, obj: Object) -> None:
        """Take note of what a write returned: the watch will tell the same, a little later."""
        key = key_of(obj)
        before = self._objects.get(key)
        if before is not None and uid_of(before) == uid_of(obj) and version_of(before) >= version_of(obj):
            return
        self._objects[key] = slim(obj)
        self._changed(before, obj)

    async def run(self) -> None:
        """Follow until cancelled."""
        tries = 0
        while True:
            try:
                version = await self._list()
                tries = 0
                while True:
                    version = await self._watch(version)
            except Expired:
                log.debug("%s: listing again", self._path)
            except StoreUnavailable as error:
                log.warning("%s cannot be watched: %s", self._path, error)
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1

    async def _list(self) -> str:
        found: dict[Key, Object] = {}
        params = {**self._selector, "limit": str(PAGE)}
        while True:
            page = await self._cluster.request("GET", self._path, params=params)
            found.update((key_of(item), slim(item)) for item in page["items"])
            token = page["metadata"].get("continue")
            if not token:
                break
            params = {**params, "continue": token}
        before, self._objects = self._objects, found
        for key in before.keys() - found.keys():
            self._changed(before[key], None)
        for key, obj in found.items():
            known = before.get(key)
            if known is None or version_of(known) != version_of(obj):
                self._changed(known, obj)
        self.listed.set()
        return str(page["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        params = {
            **self._selector,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(SILENCE),
        }
        async with aclosing(self._cluster.watch(self._path, params)) as events:  # type: ignore[type-var]  # a generator
            async for event in events:
                obj = event["object"]
                version = str(obj["metadata"]["resourceVersion"])
                if event["type"] == "BOOKMARK":
                    continue
                key = key_of(obj)
                before = self._objects.get(key)
                if event["type"] == "DELETED":
                    self._objects.pop(key, None)
                    self._changed(before or obj, None)
                elif before is None or uid_of(before) != uid_of(obj) or version_of(before) < version_of(obj):
                    self._objects[key] = slim(obj)
                    self._changed(before, obj)
        return version


def slim(obj: Object) -> Object:
    """Without what nobody reads and every object carries."""
    obj["metadata"].pop("managedFields", None)
    return obj


def key_of(obj: Object) -> Key:
    """Where it stands."""
    return (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def uid_of(obj: Object) -> str:
    """Which object of that name it is."""
    return str(obj["metadata"]["uid"])


def version_of(obj: Object) -> int:
    """Opaque by contract, and comparable since Kubernetes 1.35 says so, as every API server on etcd always did."""
    return int(obj["metadata"]["resourceVersion"])


def owner_uid(obj: Object) -> str | None:
    """The uid of its controller; None: it has none."""
    for owner in obj["metadata"].get("ownerReferences", ()):
        if owner.get("controller"):
            return str(owner["uid"])
    return None
