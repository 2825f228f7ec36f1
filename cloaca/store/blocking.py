"""A store for threads that may wait: what a run's record needs of it, without a detour over an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar, cast

from cloaca.resources.meta import Resource
from cloaca.store.base import Store

R = TypeVar("R", bound=Resource[Any, Any])
T = TypeVar("T")


class BlockingStore(Protocol):
    """As the methods of ``Store``; each returns when it is done."""

    def create_here(self, obj: R) -> R:
        """Add ``obj``."""
        ...

    def write_status_here(self, obj: R) -> R:
        """Write the status of ``obj``, which is as the store gave it but for that."""
        ...

    def get_here(self, kind: type[R], name: str, namespace: str) -> R | None:
        """The object as it stands, or None."""
        ...


def blocking(store: Store, loop: asyncio.AbstractEventLoop) -> BlockingStore:
    """``store`` for threads other than that of ``loop``, where it is asked if it has no way of its own."""
    if all(hasattr(type(store), name) for name in ("create_here", "write_status_here", "get_here")):
        return cast("BlockingStore", store)
    return _OnLoop(store, loop)


class _OnLoop:
    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def create_here(self, obj: R) -> R:
        return self._ask(self._store.create(obj))

    def write_status_here(self, obj: R) -> R:
        return self._ask(self._store.write_status(obj))

    def get_here(self, kind: type[R], name: str, namespace: str) -> R | None:
        return self._ask(self._store.get(kind, name, namespace))

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()
