"""Alarms by the thousand that hardly ever ring: a time limit for each call of user code, nearly all kept."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloaca.engine.loop import Handle, Loop

_MANY = 256  # cancelled alarms that are swept out together, once they are half of all


class Timer:
    """An alarm that was set."""

    __slots__ = ("_callback", "_timers")

    def __init__(self, timers: Timers, callback: Callable[[], None]) -> None:
        self._timers = timers
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not ring. Idempotent, and harmless after it rang."""
        if self._callback is not None:
            self._callback = None
            self._timers._cancelled()

    def _ring(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Timers:
    """Calls back in the thread of ``loop``. Thread-safe.

    Setting an alarm wakes the loop only where it is earlier than whatever the loop sleeps for already: asking the loop
    for each would cost more than most tasks do.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Timer]] = []
        self._dead = 0  # cancelled alarms in the heap, or a few more
        self._next = math.inf  # when the loop will look
        self._handle: Handle | None = None

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, after ``seconds``."""
        timer = Timer(self, callback)
        when = self._loop.time() + seconds
        with self._lock:
            heapq.heappush(self._heap, (when, next(self._numbers), timer))
            sooner = when < self._next
            if sooner:
                self._next = when
        if sooner:
            with suppress(RuntimeError):  # the loop is closed: nothing rings any more
                self._loop.call_soon_threadsafe(self._set)
        return timer

    def _cancelled(self) -> None:
        with self._lock:
            self._dead += 1
            if self._dead > _MANY and self._dead * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2]._callback is not None]
                heapq.heapify(self._heap)
                self._dead = 0

    def _set(self) -> None:
        """In the loop: look again when the earliest alarm is due."""
        with self._lock:
            when = self._next = self._heap[0][0] if self._heap else math.inf
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None if when == math.inf else self._loop.call_at(when, self._look)

    def _look(self) -> None:
        due = []
        now = self._loop.time()
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                due.append(heapq.heappop(self._heap)[2])
        self._set()
        for timer in due:
            timer._ring()
