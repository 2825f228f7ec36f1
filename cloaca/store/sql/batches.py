"""Works that wait for a thread of their own, which takes all that has gathered at once. Knows of no database."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from cloaca.errors import StoreUnavailable
from cloaca.store.sql.database import Work

T = TypeVar("T")

Outcome = tuple[Any, Exception | None]
"""What a work returned, or what it raised."""

Gather = Callable[[], Sequence[Work[Any]]]
"""The works that wait by now: called once, when they can be done."""

CLOSED = "the store was closed: open it again"


class _Waiting(Generic[T]):
    """A work in the queue, and who waits for it."""

    def __init__(self, work: Work[T]) -> None:
        self.work = work
        self.future: Future[T] = Future()


class Batches:
    """``perform`` gets what has gathered, in a thread, and gives the outcome of each. Thread-safe.

    ``most``: how many works one call gets at most. ``threads``: how many threads call ``perform``, each started when
    there is something to do for it. A work whose caller gave up while it was in the queue is not done.
    """

    def __init__(
        self, name: str, perform: Callable[[Gather], Sequence[Outcome]], *, most: int = 256, threads: int = 1
    ) -> None:
        self._name = name
        self._perform = perform
        self._most = most
        self._most_threads = threads
        self._queue: queue.SimpleQueue[_Waiting[Any] | None] = queue.SimpleQueue()
        self._guard = threading.Lock()  # of what follows
        self._threads: list[threading.Thread] = []
        self.unanswered = 0  # how many works are in the queue or being done
        self.ended = False  # it takes no more

    def put(self, work: Work[T]) -> Future[T]:
        """Queue ``work``. Raises StoreUnavailable once it is closed."""
        waiting = _Waiting(work)
        with self._guard:
            if self.ended:
                raise StoreUnavailable(CLOSED)
            if self.unanswered >= len(self._threads) < self._most_threads:
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                thread.start()
                self._threads.append(thread)
            self.unanswered += 1
            self._queue.put(waiting)
        return waiting.future

    def end(self) -> None:
        """Take no more works."""
        with self._guard:
            self.ended = True

    def close(self) -> None:
        """Take no more works; what was queued is done first."""
        self.end()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
            gathered = [first]
            batch: list[_Waiting[Any]] = []

            def gather(gathered: list[_Waiting[Any]] = gathered, batch: list[_Waiting[Any]] = batch) -> Any:
                self._add_waiting(gathered)
                batch += [waiting for waiting in gathered if waiting.future.set_running_or_notify_cancel()]
                return [waiting.work for waiting in batch]

            try:
                outcomes = self._perform(gather)
            except Exception as fault:  # noqa: BLE001 - whatever it is, somebody waits for it
                outcomes = [(None, fault)] * len(batch or gather())
            with self._guard:
                self.unanswered -= len(gathered)
            for waiting, (value, error) in zip(batch, outcomes, strict=True):
                if error is None:
                    waiting.future.set_result(value)
                else:
                    waiting.future.set_exception(error)

    def _add_waiting(self, gathered: list[_Waiting[Any]]) -> None:
        while len(gathered) < self._most:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                return
            if following is None:
                self._queue.put(None)  # the last thing in the queue, for the next look
                return
            gathered.append(following)
