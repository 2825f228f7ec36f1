"""Where alarms ring and async functions run: an event loop, or one that becomes asyncio's once it has to.

Most runs call no async function, and asyncio takes a process longer to load than to claim its run: see ``LateLoop``.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress

from cloaca.engine.log import Log
from cloaca.failure import failure_of, one_line

log = Log("cloaca.engine")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from typing import Any, Protocol, TypeVar

    T = TypeVar("T")

    class Handle(Protocol):
        """A call that is to come."""

        def cancel(self) -> object:
            """Do not call."""

    class Loop(Protocol):
        """What the engine asks of an event loop."""

        def time(self) -> float:
            """The time of its clock, in seconds."""
            ...

        def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: Any) -> object:
            """Call back in its thread. Raises RuntimeError once it is closed."""
            ...

        def call_at(self, when: float, callback: Callable[..., object], *arguments: Any) -> Handle:
            """Call back when its clock shows ``when``. Called in its thread."""
            ...

        def create_task(self, work: Coroutine[Any, Any, T]) -> Task[T]:
            """Let ``work`` run. Called in its thread."""
            ...


def runs_in(loop: Loop) -> bool:
    """Whether it is an async function of ``loop`` that calls this."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False  # then nothing async runs anywhere
    running = asyncio._get_running_loop()
    return running is not None and running is (loop.asyncio if isinstance(loop, LateLoop) else loop)


def run_on(loop: AbstractEventLoop) -> None:
    """Run ``loop`` until it is stopped, whatever user code does on it.

    A task that a function left in the background may raise SystemExit, which asyncio lets through: it ends that task,
    not the loop that everything else waits for. KeyboardInterrupt is Ctrl-C in the main thread, and is raised there.
    """
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            log.warning("a task in the background raised %s", one_line(failure_of(error).message))
        else:
            return


class _Alarm:
    """A call that is to come."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None

    def ring(self) -> None:
        """Call, unless it was cancelled."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class LateLoop:
    """A ``Loop`` in the thread that calls ``run``. It goes on as one of asyncio when the first task is made."""

    def __init__(self) -> None:
        self.asyncio: AbstractEventLoop | None = None  # None: nothing was async so far
        self._soon: deque[Callable[[], object]] = deque()
        self._alarms: list[tuple[float, int, _Alarm]] = []
        self._numbers = itertools.count()
        self._asleep = threading.Lock()  # held while there is nothing to wake up for
        self._asleep.acquire()
        self._stopped = False
        self._ended = False

    def time(self) -> float:
        """As asyncio's loops have it."""
        return time.monotonic()

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: Any) -> None:
        """As in ``Loop``. Takes no lock that the same thread may hold: a signal's handler may call it at any time."""
        self._soon.append(functools.partial(callback, *arguments))
        with suppress(RuntimeError):  # it is awake
            self._asleep.release()
        if self.asyncio is not None:  # looked at last: who makes it works off what came before
            self.asyncio.call_soon_threadsafe(self._work_off)

    def call_at(self, when: float, callback: Callable[..., object], *arguments: Any) -> Handle:
        """As in ``Loop``."""
        if self.asyncio is not None:
            return self.asyncio.call_at(when, callback, *arguments)
        alarm = _Alarm(functools.partial(callback, *arguments))
        heapq.heappush(self._alarms, (when, next(self._numbers), alarm))
        return alarm

    def create_task(self, work: Coroutine[Any, Any, T]) -> Task[T]:
        """As in ``Loop``."""
        if self.asyncio is None:
            from asyncio import new_event_loop

            self.asyncio = new_event_loop()
            for when, _, alarm in self._alarms:
                self.asyncio.call_at(when, alarm.ring)
            self.asyncio.call_soon(self._work_off)
        return self.asyncio.create_task(work)

    def stop(self) -> None:
        """Let ``run`` return. Thread-safe; idempotent."""
        self._stopped = True
        with suppress(RuntimeError):  # it is closed
            self.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self.asyncio is not None and not self._ended:
            self._ended = True  # what comes later must not stop the winding down
            self.asyncio.stop()

    def run(self) -> None:
        """Call what is to be called, until it is stopped. Once."""
        while self.asyncio is None:
            self._work_off()
            if self.asyncio is None:
                if self._stopped:
                    return
                self._asleep.acquire(timeout=self._ring())
        self._run_asyncio(self.asyncio)

    def _work_off(self) -> None:
        while self._soon:
            self._soon.popleft()()

    def _ring(self) -> float:
        """Ring what is due; seconds until the next, 0 where something came of it, -1 where there is none."""
        rang = False
        while self._alarms and self._alarms[0][0] <= self.time() and self.asyncio is None:
            heapq.heappop(self._alarms)[2].ring()
            rang = True
        if rang:
            return 0
        return min(self._alarms[0][0] - self.time(), threading.TIMEOUT_MAX) if self._alarms else -1

    def _run_asyncio(self, loop: AbstractEventLoop) -> None:
        import asyncio

        asyncio.set_event_loop(loop)
        try:
            if self._stopped:  # perhaps before there was anything of asyncio to stop
                loop.call_soon(self._end)
            run_on(loop)
            loop.run_until_complete(_wind_down(loop))
        finally:
            asyncio.set_event_loop(None)
            loop.close()


async def _wind_down(loop: AbstractEventLoop) -> None:
    """What still runs was given up: let it clean up."""
    import asyncio

    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await loop.shutdown_asyncgens()
