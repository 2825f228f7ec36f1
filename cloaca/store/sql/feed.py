"""Wakes whoever follows the changes: at once after a write of ours, and when another process has written.

Every process of ours reads a byte of the lock file after each commit, and the kernel tells us of that. Where it does
not (no inotify), a look at the database every 20 ms does; elsewhere a look a second is there for foreign programs.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable

from cloaca.store.sql.notice import drain, watch
from cloaca.store.sql.subscribers import Subscribers, call, running_loop

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
        self.connection = watching  # None: in memory, where no other process can write
        self._told_of = told_of  # the file that every process of ours reads after a commit; None: there is none
        self._subscribers = Subscribers()
        self.lock = threading.Lock()  # of the connection, and of what follows
        self._watching: dict[asyncio.AbstractEventLoop, _Watching] = {}
        self._version: int | None = None
        self.committed = self._subscribers.wake  # a write was committed: wake everybody now

    def subscribe(self) -> asyncio.Event:
        """An event of the running loop that is set when something may have changed."""
        loop, event = asyncio.get_running_loop(), self._subscribers.add()
        with self.lock:
            if self.connection is not None and loop not in self._watching:
                self._watching[loop] = _Watching(loop, self._told_of, self._look)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Wake it no more. Called in its loop."""
        loop = self._subscribers.discard(event)
        with self.lock:
            if loop is not None and not self._subscribers.has(loop):
                watching = self._watching.pop(loop, None)
                if watching is not None:
                    watching.end()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.committed()
        with self.lock:
            here = running_loop()
            for loop, watching in self._watching.items():
                if loop is here or loop.is_closed():
                    watching.end()
                else:
                    call(loop, watching.end)
            self._watching.clear()
            if self.connection is not None:
                self.connection.close()
                self.connection = None

    def _look(self) -> None:
        """Wake everybody if another connection has committed since the last look."""
        with self.lock:
            if self.connection is None:
                return
            try:
                version = self.connection.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:
                version = None  # whoever follows learns what is wrong when it reads
            changed, self._version = version is None or version != self._version, version
        if changed:
            self.committed()
