"""Wakes whoever follows the changes: at once after a write of ours, and when another process has written.

Every process of ours writes a byte to the lock file after each commit, and the kernel tells us of that. Where it does
not (no inotify), a look at the database every 20 ms does; elsewhere a look a second is there for foreign programs.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress

from cloaca.store.sql.notice import drain, watch

LOOK_UNTOLD = 0.02  # seconds between two looks where nobody tells us
LOOK_TOLD = 1.0  # seconds between two looks where the kernel does


class _Watching:
    """What wakes one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told_of: str | None, look: Callable[[], None]) -> None:
        self._loop = loop
        self._look = look
        self._descriptor = None if told_of is None else watch(told_of)  # None: only the timer looks
        if self._descriptor is not None:
            loop.add_reader(self._descriptor, self._told)
        self._every = LOOK_UNTOLD if self._descriptor is None else LOOK_TOLD
        self._timer = loop.call_later(self._every, self._elapsed)

    def _told(self) -> None:
        if self._descriptor is not None:
            drain(self._descriptor)
        self._look()

    def _elapsed(self) -> None:
        self._timer = self._loop.call_later(self._every, self._elapsed)
        self._look()

    def end(self) -> None:
        """Wake nobody any more. Called in the loop's own thread, or after the loop was closed."""
        self._timer.cancel()
        if self._descriptor is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


class Feed:
    """The subscribers of one store, in whatever loops they are. Thread-safe."""

    def __init__(self, watching: sqlite3.Connection | None, told_of: str | None) -> None:
        self._connection = watching  # None: in memory, where no other process can write
        self._told_of = told_of  # the file that every process of ours writes to after a commit; None: there is none
        self._lock = threading.Lock()
        self._subscribers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._watching: dict[asyncio.AbstractEventLoop, _Watching] = {}
        self._version: int | None = None

    def subscribe(self) -> asyncio.Event:
        """An event of the running loop that is set when something may have changed."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._subscribers[event] = loop
            if self._connection is not None and loop not in self._watching:
                self._watching[loop] = _Watching(loop, self._told_of, self._look)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Wake it no more. Called in its loop."""
        with self._lock:
            loop = self._subscribers.pop(event, None)
            if loop is not None and loop not in self._subscribers.values():
                watching = self._watching.pop(loop, None)
                if watching is not None:
                    watching.end()

    def committed(self) -> None:
        """A write was committed: wake everybody now. Called in any thread."""
        if not self._subscribers:
            return  # whoever subscribes after this commit reads it
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
        self.committed()
        with self._lock:
            here = _running_loop()
            for loop, watching in self._watching.items():
                if loop is here or loop.is_closed():
                    watching.end()
                else:
                    _call(loop, watching.end)
            self._watching.clear()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _look(self) -> None:
        """Wake everybody if another connection has committed since the last look."""
        with self._lock:
            if self._connection is None:
                return
            try:
                version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:
                version = None  # whoever follows learns what is wrong when it reads
            changed, self._version = version is None or version != self._version, version
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
