"""Wakes whoever follows the changes: at once after a write of ours, within 20 ms after another process's."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress

LOOK_EVERY = 0.02  # seconds between two looks for other processes' commits; a look costs some microseconds


class Feed:
    """The subscribers of one store, in whatever loops they are. Thread-safe."""

    def __init__(self, watch: sqlite3.Connection | None) -> None:
        self._watch = watch  # None: in memory, where no other process can write
        self._lock = threading.Lock()
        self._subscribers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._version: int | None = None
        self._closed = False

    def subscribe(self) -> asyncio.Event:
        """An event of the running loop that is set when something may have changed."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._subscribers[event] = loop
            if self._watch is not None and loop not in self._timers:
                self._timers[loop] = loop.call_later(LOOK_EVERY, self._look, loop)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Wake it no more."""
        with self._lock:
            loop = self._subscribers.pop(event, None)
            if loop is not None and loop not in self._subscribers.values():
                timer = self._timers.pop(loop, None)
                if timer is not None:
                    timer.cancel()

    def committed(self) -> None:
        """A write of this process was committed: wake everybody now. Called in any thread."""
        with self._lock:
            subscribers = list(self._subscribers.items())
        here = _running_loop()
        for event, loop in subscribers:
            if loop is here:
                event.set()
            else:
                _call(loop, event.set)

    def close(self) -> None:
        """Wake everybody for the last time."""
        self._closed = True
        self.committed()
        with self._lock:
            for loop, timer in self._timers.items():
                _call(loop, timer.cancel)
            self._timers.clear()
            if self._watch is not None:
                self._watch.close()
                self._watch = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._watch is None or loop not in self._timers:
                return
            self._timers[loop] = loop.call_later(LOOK_EVERY, self._look, loop)
            version: int = self._watch.execute("PRAGMA data_version").fetchone()[0]
            changed, self._version = version != self._version, version
        if changed:
            self.committed()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits there
        loop.call_soon_threadsafe(callback)
