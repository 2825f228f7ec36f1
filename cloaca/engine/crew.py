"""The threads of the engine: they drive runs and call user code, which holds up neither the others nor the program."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger("cloaca.engine")

_BUSY = 2  # more threads at work would only wait for each other: Python runs one at a time, SQLite lets one write
_MOST = 1_000  # with those that wait for the world in user code


class Crew:
    """Takes jobs; few of its threads work at once. One that calls user code, or waits, is ``away`` meanwhile.

    Threads are started when needed, up to ``most``. They are daemons: one that hangs dies with the process.
    """

    def __init__(self, most: int = _MOST, *, busy: int = _BUSY, name: str = "cloaca-task") -> None:
        self._most = most
        self._busy = busy
        self._name = name
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # of what follows
        self._jobs: deque[Callable[[], None]] = deque()
        self._parked: list[threading.Lock] = []  # each held by a thread that waits for it; the last one is the warmest
        self._threads = 0
        self._at_work = 0
        self._closed = False

    def submit(self, job: Callable[[], None]) -> None:
        """Do ``job`` in a thread. Raises RuntimeError after ``shutdown``, or where not one thread can be started."""
        with self._lock:
            if self._closed:
                raise RuntimeError("these threads were shut down")
            self._jobs.append(job)
            if self._at_work < self._busy:
                try:
                    self._call_in()
                except RuntimeError:  # the system has no more threads
                    if not self._threads:
                        self._jobs.pop()
                        raise

    def leave(self) -> None:
        """The calling thread, one of these, is away from work: it calls user code, or waits."""
        with self._lock:
            self._at_work -= 1
            if self._jobs and self._at_work <= 0:
                try:
                    self._call_in()
                except RuntimeError:  # the system has no more threads: the job waits for one that comes back
                    return

    def back(self) -> None:
        """The calling thread is at work again."""
        with self._lock:
            self._at_work += 1

    def shutdown(self) -> None:
        """Take no more jobs; threads end after the jobs that were taken. It never waits."""
        with self._lock:
            self._closed = True
            parked, self._parked = self._parked, []
            self._at_work += len(parked)
        for thread in parked:
            thread.release()

    def _call_in(self) -> None:
        """One more thread at work. Called with the lock held."""
        if self._parked:
            self._parked.pop().release()
        elif self._threads < self._most:
            threading.Thread(target=self._work, name=f"{self._name}-{next(self._numbers)}", daemon=True).start()
            self._threads += 1
        else:
            return
        self._at_work += 1  # last: where a signal's handler raises before it, one thread more works, and never one less

    def _work(self) -> None:
        parked = threading.Lock()
        parked.acquire()
        while True:
            with self._lock:
                job = self._jobs.popleft() if self._jobs and self._at_work <= self._busy else None
                if job is None:
                    self._at_work -= 1
                    if self._closed:
                        self._threads -= 1
                        return
                    self._parked.append(parked)
            if job is None:
                parked.acquire()
                continue
            try:
                job()
            except Exception:  # a fault of the engine: the thread stays for others
                log.exception("internal error")
            del job  # while this thread is parked, nothing of the last job stays alive
