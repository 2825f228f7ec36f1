"""Time that passes only when nothing is left to do: an event loop and a wall clock that need no waiting."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import selectors
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

from faults.crew import Crew, ask, sleep

from cloaca.engine import journal
from cloaca.processes import run
from cloaca.store import blocking
from cloaca.store.sql import store as sql

EPOCH = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
STARTED = 1000.0  # what the loop's clock shows at EPOCH
ANSWER = 2.0  # real seconds in which a server answers, unless what was sent waits for the clock itself
_THREADS = ThreadPoolExecutor(2)


class Stuck(AssertionError):
    """Nothing will ever happen again, though somebody waits."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing is ready."""

    def __init__(self) -> None:
        self.clock = STARTED
        self.threads = 0  # calls under way in threads: the clock stands while there are any
        self.busy = 0  # answers that a server owes: the clock stands while there are any
        self.to_come: Callable[[], float] = lambda: 0.0  # real seconds in which there is news, for which it stands too
        super().__init__(_Selector(self))
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.clock

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        self.threads += 1
        future = super().run_in_executor(executor or _THREADS, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: object) -> None:
        self.threads -= 1


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]  # an alias of what the system has
    """Looks at sockets without waiting; instead of waiting, time passes."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return sorted(ready, key=lambda item: item[0].fd)  # whom the kernel tells first is chance
        if self._loop.threads:
            return super().select(10.0)
        patience = ANSWER if self._loop.busy else self._loop.to_come()
        if patience and (ready := super().select(patience)):
            return ready
        if timeout is None:
            raise Stuck("nothing is left that could happen")
        self._loop.clock += max(timeout, 0.0)
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
def governed(clock: WallClock, chance: random.Random) -> Iterator[None]:
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
    real_uuid, state, real_crew = uuid.uuid4, random.getstate(), run.Crew
    real_uid, sql._new_uid = sql._new_uid, lambda: str(uuid.uuid4())
    real_sleep, journal.sleep = journal.sleep, sleep
    real_ask, blocking._OnLoop._ask = blocking._OnLoop._ask, lambda _, question: ask(question)  # type: ignore[method-assign]  # while it lasts
    run.Crew = Crew  # type: ignore[misc,assignment]  # as far as a run's process uses one
    uuid.uuid4 = lambda: uuid.UUID(int=chance.getrandbits(128), version=4)
    random.seed(chance.random())
    try:
        yield
    finally:
        journal.sleep, blocking._OnLoop._ask = real_sleep, real_ask  # type: ignore[method-assign]  # as it was
        sql._new_uid = real_uid
        uuid.uuid4, run.Crew = real_uuid, real_crew  # type: ignore[misc]  # as it was
        random.setstate(state)
        for module in replaced:
            module.datetime = dt.datetime  # type: ignore[attr-defined]
