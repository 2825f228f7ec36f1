"""Time that passes only when nothing is left to do: an event loop and a wall clock that need no waiting."""

from __future__ import annotations

import asyncio
import datetime as dt
import heapq
import itertools
import math
import random
import selectors
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

from faults.crew import ask, sleep
from faults.parsed import Parsed

from cloaca.engine import journal
from cloaca.store import blocking
from cloaca.store.sql import store as sql

EPOCH = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
STARTED = 1000.0  # what the loop's clock shows at EPOCH
ANSWER = 2.0  # real seconds in which a server answers, unless what was sent waits for the clock itself
_LONG = 20  # turns of the loop in which something is always ready
_AT_ONCE = 1e-6  # seconds: timers that are no further apart are due together
_THREADS = ThreadPoolExecutor(2)


class Stuck(AssertionError):
    """Nothing will ever happen again, though somebody waits."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing is ready."""

    _ready: deque[Any]  # handles; of asyncio, as are the next three
    _scheduled: list[Any]
    _stopping: bool
    _process_events: Callable[[Any], None]

    def __init__(self) -> None:
        self.clock = STARTED
        self.threads = 0  # calls under way in threads: the clock stands while there are any
        self.busy = 0  # answers that a server owes: the clock stands while there are any
        self.to_come: Callable[[], float] = lambda: 0.0  # real seconds in which there is news, for which it stands too
        self._pauses: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._turns = 0  # since it looked at sockets
        self._watched = _Selector(self)
        super().__init__(self._watched)

    def time(self) -> float:
        return self.clock

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        self.threads += 1
        future = super().run_in_executor(executor or _THREADS, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: object) -> None:
        self.threads -= 1

    def pause(self, seconds: float) -> asyncio.Future[None]:
        """As ``asyncio.sleep``, in a third of its time: every call of a store pauses twice."""
        future = self.create_future()
        heapq.heappush(self._pauses, (self.clock + seconds, next(self._numbers), future))
        return future

    def _run_once(self) -> None:
        """In the place of asyncio's, which looks at sockets and timers at each turn: here once nothing is ready, or
        has been for long, since somebody may go round and round until something comes."""
        ready = self._ready
        self._turns += 1
        if not ready or self._turns > _LONG:
            self._turns = 0
            self._advance()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _advance(self) -> None:
        """Hear what came, or go on to the next timer."""
        ready, scheduled, pauses = self._ready, self._scheduled, self._pauses
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)
        due = min(scheduled[0]._when if scheduled else math.inf, pauses[0][0] if pauses else math.inf)
        events = self._watched.select(0 if ready or self._stopping else due - self.clock)
        if events:
            self._process_events(events)
        end = self.clock + _AT_ONCE
        while scheduled and scheduled[0]._when < end:
            ready.append(heapq.heappop(scheduled))
        while pauses and pauses[0][0] < end:
            future = heapq.heappop(pauses)[2]
            if not future.done():
                future.set_result(None)


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]  # an alias of what the system has
    """Looks at sockets without waiting; instead of waiting, time passes."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        loop = self._loop
        if len(self._fd_to_key) == 1 and not loop.threads and not loop.busy and timeout:
            ready: Any = ()  # there is nobody to hear
        else:
            ready = super().select(0)
            if ready or not timeout:
                return sorted(ready, key=lambda item: item[0].fd)  # whom the kernel tells first is chance
            if loop.threads:
                return super().select(10.0)
            patience = ANSWER if loop.busy else loop.to_come()
            if patience and (ready := super().select(patience)):
                return ready
        if timeout is None or timeout == math.inf:
            raise Stuck("nothing is left that could happen")
        loop.clock += max(timeout, 0.0)
        return ready


class WallClock:
    """What ``datetime.now`` says: the loop's time, and how far somebody has turned the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.turned = timedelta(0)

    def now(self) -> datetime:
        """The time that a program sees."""
        return EPOCH + timedelta(seconds=self._loop.clock - STARTED) + self.turned


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, dt.datetime)


@contextmanager
def governed(clock: WallClock, chance: random.Random, parsed: Parsed) -> Iterator[None]:
    """Our modules see ``clock``, and threads run in turn; identities and jitter come from ``chance``.

    So do the uids that a SQL store gives: the phase of a trigger's polls comes of its uid.
    """

    class Virtual(datetime, metaclass=_Kind):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return clock.now().astimezone(tz)

    replaced = []
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("cloaca", "cloacina_operator") and vars(module).get("datetime") is dt.datetime:
            module.datetime = Virtual  # type: ignore[attr-defined]  # that it has one was just seen
            replaced.append(module)
    real_uuid, state = uuid.uuid4, random.getstate()
    real_uid, sql._new_uid = sql._new_uid, lambda: str(uuid.uuid4())
    real_from_row, sql.from_row = sql.from_row, parsed.from_row
    real_sleep, journal.sleep = journal.sleep, sleep
    real_ask, blocking._OnLoop._ask = blocking._OnLoop._ask, lambda _, question: ask(question)  # type: ignore[method-assign]  # while it lasts
    uuid.uuid4 = lambda: uuid.UUID(int=chance.getrandbits(128), version=4)
    random.seed(chance.random())
    try:
        yield
    finally:
        journal.sleep, blocking._OnLoop._ask = real_sleep, real_ask  # type: ignore[method-assign]  # as it was
        sql._new_uid, sql.from_row = real_uid, real_from_row
        uuid.uuid4 = real_uuid
        random.setstate(state)
        for module in replaced:
            module.datetime = dt.datetime  # type: ignore[attr-defined]
