"""Threads for sync tasks, which never hold up the end of the program: a task that hangs dies with the process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class DaemonThreads(Executor):
    """Up to ``most`` threads, started when needed. ``ThreadPoolExecutor`` would join its threads at exit."""

    def __init__(self, most: int, name: str = "cloaca-task") -> None:
        self._most = most
        self._name = name
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()  # None: one thread ends
        self._threads = 0
        self._idle = 0  # threads that wait for a job which is not in the queue yet
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call ``fn`` in a thread. Raises RuntimeError after ``shutdown``, or where not one thread can be started."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("these threads were shut down")
            if self._idle:
                self._idle -= 1
            elif self._threads < self._most:
                try:
                    self._start_thread()
                except RuntimeError:  # the system has no more threads
                    if not self._threads:
                        raise
            self._jobs.put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  # the base has it
        """Take no more jobs; threads end after their jobs. It never waits, whatever ``wait`` says."""
        with self._lock:
            self._closed = True
            while cancel_futures and not self._jobs.empty():
                job = self._jobs.get()
                if job is not None:
                    job[0].cancel()
            for _ in range(self._threads):
                self._jobs.put(None)

    def _start_thread(self) -> None:
        name = f"{self._name}-{next(self._numbers)}"
        threading.Thread(target=self._work, name=name, daemon=True).start()
        self._threads += 1

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            _do(*job)
            del job  # while this thread is idle, nothing of the last job stays alive
            with self._lock:
                self._idle += 1


def _do(future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001  # it travels to whoever waits for the future
        future.set_exception(error)
    else:
        future.set_result(result)
