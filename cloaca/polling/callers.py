"""Threads that call trigger functions: those that come due together in turn, and none waits long for a slow one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

Call = Callable[[], None]


class Callers:
    """Takes calls from one thread and makes them in its own.

    One thread makes the calls that were added together, one after the other, as long as each is quick: to wake a thread
    costs more than most functions. Whoever added them asks for ``help`` where that takes long.
    """

    def __init__(self, most: int, *, name: str) -> None:
        """``most``: threads, at least 1. They are daemons: one that hangs dies with the process."""
        self._most = most
        self._name = name
        self._calls: deque[Call] = deque()
        self._lock = threading.Lock()  # of what follows
        self._parked: list[threading.Lock] = []  # each held by a thread that waits for it; the last one is the warmest
        self._threads = 0

    def add(self, calls: Iterable[Call]) -> None:
        """Make ``calls``. A call must raise nothing."""
        self._calls.extend(calls)
        self._call_in()

    def help(self) -> bool:
        """Whether calls wait: then twice as many threads as are busy now take them."""
        waiting = len(self._calls)
        for _ in range(min(waiting, max(1, self._threads - len(self._parked)))):
            self._call_in()
        return waiting > 0

    @property
    def waiting(self) -> bool:
        """Whether calls wait."""
        return bool(self._calls)

    def _call_in(self) -> None:
        with self._lock:
            if self._parked:
                self._parked.pop().release()
                return
            if self._threads >= self._most:
                return  # one that comes back takes them
            self._threads += 1
        try:
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        except RuntimeError:  # the system has no more threads
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    raise

    def _work(self) -> None:
        parked = threading.Lock()
        parked.acquire()
        while True:
            try:
                call = self._calls.popleft()
            except IndexError:
                with self._lock:
                    if self._calls:
                        continue
                    self._parked.append(parked)
                parked.acquire()
                continue
            call()
            del call  # while this thread is parked, nothing of the last call stays alive
