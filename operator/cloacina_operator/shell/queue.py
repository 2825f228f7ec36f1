"""Which objects to look at, and when. Each is looked at by one worker at a time; adding it twice is once.

Namespaces take turns, so that one with thousands of objects to look at does not keep the others waiting.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from cloaca.resources import Ref

FIRST_BACKOFF = 0.05  # seconds
LONGEST_BACKOFF = 60.0


class Queue:
    """References, deduplicated, with delays and a backoff for each. Belongs to one event loop."""

    def __init__(self) -> None:
        self._ready: OrderedDict[str, deque[Ref]] = OrderedDict()  # by namespace, the one whose turn is next first
        self._queued: set[Ref] = set()
        self._busy: set[Ref] = set()
        self._again: set[Ref] = set()  # added while busy
        self._timers: dict[Ref, asyncio.TimerHandle] = {}
        self._failures: dict[Ref, int] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()

    def add(self, ref: Ref) -> None:
        """Have ``ref`` looked at as soon as possible: again, if that is happening now."""
        if ref in self._busy:
            self._again.add(ref)
            return
        if ref in self._queued:
            return
        self._queued.add(ref)
        self._ready.setdefault(ref.namespace, deque()).append(ref)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def add_after(self, ref: Ref, seconds: float) -> None:
        """Have ``ref`` looked at in ``seconds``; the earlier of two such wishes holds."""
        if seconds <= 0:
            self.add(ref)
            return
        loop = asyncio.get_running_loop()
        known = self._timers.get(ref)
        if known is not None:
            if known.when() <= loop.time() + seconds:
                return
            known.cancel()
        self._timers[ref] = loop.call_later(seconds, self._elapsed, ref)

    async def get(self) -> Ref:
        """The next one to look at; say ``done`` afterwards."""
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        namespace, refs = next(iter(self._ready.items()))
        ref = refs.popleft()
        if refs:
            self._ready.move_to_end(namespace)
        else:
            del self._ready[namespace]
        self._queued.discard(ref)
        self._busy.add(ref)
        return ref

    def done(self, ref: Ref, *, failed: bool = False) -> None:
        """``ref`` was looked at. Failed: it is looked at again, after a pause that doubles with each failure."""
        self._busy.discard(ref)
        if failed:
            failures = self._failures[ref] = self._failures.get(ref, 0) + 1
            self._again.discard(ref)
            self.add_after(ref, min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 20), LONGEST_BACKOFF))
            return
        self._failures.pop(ref, None)
        if ref in self._again:
            self._again.discard(ref)
            self.add(ref)

    def __len__(self) -> int:
        return len(self._queued) + len(self._busy)

    def _elapsed(self, ref: Ref) -> None:
        del self._timers[ref]
        self.add(ref)
