"""The threads of the engine: they drive runs and call user code, which holds up neither the others nor the program."""

from __future__ import annotations

import contextvars
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cloaca.engine.log import Log
from cloaca.packages.context_variables import fresh

log = Log("cloaca.engine")

_BUSY = 1  # more threads at work would only wait for each other: Python runs one at a time, SQLite lets one write
_MOST = 1_000  # with those that wait for the world in user code
_BRIEF = 0.001  # seconds of user code, until which another thread is not worth its waking
_QUIET = 10  # looks in vain, after which a lookout ends


class Crew:
    """Takes jobs; few of its threads work at once. One that calls user code, or waits, is away meanwhile.

    Who waits is stood in for at once, as is who calls user code where the last call took its time; else a lookout finds
    within a millisecond that it does. Threads are started when needed, up to ``most``. They are daemons: one that hangs
    dies with the process.
    """

    def __init__(
        self,
        most: int = _MOST,
        *,
        busy: int = _BUSY,
        name: str = "cloaca-task",
        context: contextvars.Context | None = None,
        whole_process: bool = False,
    ) -> None:
        """``context``: the context variables that user code finds, such as those that a package set when it was
        imported; None: none. Each call gets a copy, so what it sets is gone after it.
        ``whole_process``: the process is there for user code alone, and whoever ends it waits for threads: those that
        user code starts are no daemons unless it says so, as in a main thread."""
        self._whole_process = whole_process
        self._context = contextvars.Context() if context is None else context
        self._most = most
        self._busy = busy
        self._name = name
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # of what follows
        self._jobs: deque[Callable[[], None]] = deque()
        self._parked: list[threading.Lock] = []  # each held by a thread that waits for it; the last one is the warmest
        self._threads = 0
        self._at_work = 0
        self._brief = True  # the last call of user code was
        self._looked_out = False  # a thread is on the lookout
        self._closed = False

    def submit(self, job: Callable[[], None], *, awaited: bool = False) -> None:
        """Do ``job`` in a thread. Raises RuntimeError after ``shutdown``, or where not one thread can be started.

        ``awaited``: user code in one of these threads will wait for the job, so none may wait for that thread to come
        back; raises RuntimeError if the system has no further thread for it.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("these threads were shut down")
            self._jobs.append(job)
            if self._at_work < self._busy:
                try:
                    self._call_in()
                except RuntimeError:  # the system has no more threads
                    if not self._threads or (awaited and not self._at_work):
                        self._jobs.pop()
                        raise

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What ``function``, user code, returns, called in this thread, one of these, however long it takes."""
        with self._lock:
            self._at_work -= 1
            if self._jobs and self._at_work < self._busy:
                if not self._brief:
                    self._stand_in()
                elif not self._looked_out:
                    self._looked_out = _started(self._look_out, f"{self._name}-lookout")
        began = time.monotonic()
        try:
            return function(*arguments)
        finally:
            brief = time.monotonic() - began < _BRIEF
            with self._lock:
                self._at_work += 1
                self._brief = brief

    def fresh_context(self) -> contextvars.Context:
        """The context variables for one call of user code, which no other call changes."""
        return fresh(self._context)

    def leave(self, *, awaited: bool = False) -> None:
        """The calling thread, one of these, waits, and so is away from work.

        ``awaited``: perhaps for a job that is queued here; raises RuntimeError if no thread is left for it.
        """
        with self._lock:
            self._at_work -= 1
            if self._jobs and self._at_work < self._busy:
                self._stand_in()
                if awaited and not self._at_work:
                    self._at_work += 1
                    raise RuntimeError("the system has no more threads")

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

    def _look_out(self) -> None:
        """In a thread of its own, until no job has waited for a while: see to it that none waits for who takes long."""
        quiet = 0
        while quiet < _QUIET:
            time.sleep(_BRIEF)
            with self._lock:
                quiet = 0 if self._jobs else quiet + 1
                if self._jobs and self._at_work < self._busy:
                    self._stand_in()
                self._looked_out = quiet < _QUIET

    def _stand_in(self) -> None:
        with suppress(RuntimeError):  # the system has no more threads: the jobs wait for one that comes back
            self._call_in()

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
        if self._whole_process:
            threading.current_thread()._daemonic = False  # type: ignore[attr-defined]  # what new threads take over
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
            except BaseException:  # a fault of the engine: the thread stays for others
                log.exception("internal error")
            del job  # while this thread is parked, nothing of the last job stays alive


def _started(work: Callable[[], None], name: str) -> bool:
    """Whether there is a thread for ``work`` now."""
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError:  # the system has no more
        return False
    return True
