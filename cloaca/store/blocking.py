"""A store for threads that may wait: what a run's record needs of it, without a detour over an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar, cast

from cloaca.resources.meta import Resource
from cloaca.store.base import Store

R = TypeVar("R", bound=Resource[Any, Any])
T = TypeVar("T")


class Status(Protocol):
    """A status that is to be written, and its JSON, if that is known already: ours alone, without what is unset."""

    @property
    def status(self) -> Any: ...

    @property
    def text(self) -> str | None: ...


class BlockingStore(Protocol):
    """As the methods of ``Store``; each returns when it is done."""

    @property
    def waits(self) -> bool:
        """Whether they wait for another process, such as a server."""
        ...

    def create_here(self, obj: R, status: Status) -> R:
        """Add ``obj`` with ``status``, which what is returned lacks."""
        ...

    def write_status_here(self, obj: Resource[Any, Any], version: str, status: Status) -> str:
        """Write ``status`` for ``obj`` as it stood at the resource version ``version``; returns the new version.

        Raises Conflict where ``version`` is not the current one, NotFound where the object is gone.
        """
        ...

    def get_here(self, kind: type[R], name: str, namespace: str) -> R | None:
        """The object as it stands, or None."""
        ...


def blocking(store: Store, loop: asyncio.AbstractEventLoop) -> BlockingStore:
    """``store`` for threads other than that of ``loop``, where it is asked if it has no way of its own."""
    if all(hasattr(type(store), name) for name in ("waits", "create_here", "write_status_here", "get_here")):
        return cast("BlockingStore", store)
    return _OnLoop(store, loop)


class _OnLoop:
    waits = True

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def create_here(self, obj: R, status: Status) -> R:
        return self._ask(self._store.create(obj.model_copy(update={"status": status.status})))

    def write_status_here(self, obj: Resource[Any, Any], version: str, status: Status) -> str:
        metadata = obj.metadata.model_copy(update={"resource_version": version})
        seen = obj.model_copy(update={"metadata": metadata, "status": status.status})
        return self._ask(self._store.write_status(seen)).metadata.resource_version

    def get_here(self, kind: type[R], name: str, namespace: str) -> R | None:
        return self._ask(self._store.get(kind, name, namespace))

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()
