"""Runs that a task executes: the thread that waits for one gives its place to others, so that nesting never deadlocks.

Three things are given back: the task's concurrency slot, its turn among the threads of the engine (a thread in user
code never holds one), and its turn among the threads that ``asyncio.to_thread`` uses in async tasks.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from cloaca.engine.crew import Crew
from cloaca.engine.handle import TaskHandle
from cloaca.errors import CloacaError

T = TypeVar("T")

MOST_NESTED = 900  # waits at once in this process; fewer than a pool has threads, so that some are left to end them

_here = threading.local()
_waits = threading.BoundedSemaphore(MOST_NESTED)


def _forked() -> None:
    global _waits  # the threads that waited stayed in the parent
    _waits = threading.BoundedSemaphore(MOST_NESTED)


os.register_at_fork(after_in_child=_forked)


def wait_nested(handle: TaskHandle, wait: Callable[[], None], cancel: Callable[[], None]) -> None:
    """Call ``wait`` in a thread of the task of ``handle``, without holding its place; then take the place again.

    ``cancel`` is called if the task is given up meanwhile. Raises TaskTimeout if it was, and CloacaError where too many
    tasks wait like this.
    """
    waits = _waits
    if not waits.acquire(blocking=False):
        raise CloacaError(
            f"{MOST_NESTED} tasks of this process wait for runs that they execute: does a workflow execute itself "
            "without end? If not, let fewer tasks call execute at once"
        )
    threads: LoopThreads | None = getattr(_here, "threads", None)
    try:
        handle.wait_for_run(wait if threads is None else functools.partial(threads.wait, wait), cancel)
    finally:
        waits.release()


class LoopThreads(ThreadPoolExecutor):
    """The default executor of a runner's loop: as many threads at work as asyncio has, and others for those that wait.

    Its threads are daemons: a function that hangs does not keep the program from its end.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)  # asyncio accepts no other kind of executor; threads of this kind never start
        self._crew = Crew(busy=min(32, (os.cpu_count() or 1) + 4), name="cloaca-to-thread")

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call ``fn`` in a thread. Raises RuntimeError after ``shutdown``."""
        future: Future[T] = Future()
        call = functools.partial(self._call, future, functools.partial(fn, *args, **kwargs))
        self._crew.submit(call, awaited=True)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Take no more calls. It never waits."""
        self._crew.shutdown()

    def wait(self, wait: Callable[[], None]) -> None:
        """Call ``wait`` in one of these threads, while another one may take its place."""
        self._crew.leave(awaited=True)
        try:
            wait()
        finally:
            self._crew.back()

    def _call(self, future: Future[T], function: Callable[[], T]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        _here.threads = self
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever awaits it
            future.set_exception(error)
        else:
            future.set_result(value)
        finally:
            _here.threads = None
