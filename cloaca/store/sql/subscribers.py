"""Who waits to be told that something may have been committed, in whatever event loop. Knows of no database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class Subscribers:
    """Events, each with the loop that it belongs to. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def __bool__(self) -> bool:
        return bool(self._loops)

    def add(self) -> asyncio.Event:
        """An event of the running loop."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._loops[event] = loop
        return event

    def discard(self, event: asyncio.Event) -> asyncio.AbstractEventLoop | None:
        """Set it no more; returns its loop."""
        with self._lock:
            return self._loops.pop(event, None)

    def has(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether anybody waits in ``loop``."""
        with self._lock:
            return loop in self._loops.values()

    def wake(self) -> None:
        """Set every event. Called in any thread."""
        if not self._loops:
            return  # whoever subscribes from now on reads what was committed
        with self._lock:
            subscribers = list(self._loops.items())
        here = running_loop()
        for event, loop in subscribers:
            if loop is here:
                event.set()
            else:
                call(loop, event.set)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call ``callback`` in ``loop``, from another thread."""
    with suppress(RuntimeError):  # the loop is closed: nobody waits there
        loop.call_soon_threadsafe(callback)
