"""Threads in turn with the event loop: one of them runs while all others stand, so that a case repeats exactly.

The engine drives runs in threads that wait for the store. Here the loop stands while such a thread runs, and a thread
that waits gives its turn back to the loop; time passes only in the loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

log = logging.getLogger("cloaca.engine")

T = TypeVar("T")

_here = threading.local()


def ask(question: Coroutine[Any, Any, T]) -> T:
    """In a thread of a crew: what ``question`` comes to in the loop, for which the thread waits."""
    turn: _Turn = _here.turn
    return turn.ask(question)


def sleep(seconds: float) -> None:
    """In a thread of a crew: let so much of the loop's time pass."""
    ask(asyncio.sleep(seconds))


class Crew:
    """In the place of ``cloaca.engine.crew.Crew``: its jobs run where and as which process they were submitted."""

    def __init__(self, most: int = 0, *, busy: int = 0, name: str = "") -> None:
        self._loop = asyncio.get_running_loop()

    def submit(self, job: Callable[[], None], *, awaited: bool = False) -> None:
        context = copy_context()
        turn = _Turn(self._loop, job, context)
        self._loop.call_soon_threadsafe(turn.begin, context=context)

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return function(*arguments)

    def fresh_context(self) -> Context:
        return copy_context()

    def leave(self, *, awaited: bool = False) -> None:
        """Nothing: nobody is kept from work here."""

    def back(self) -> None:
        """Nothing."""


class _Turn:
    """One job."""

    def __init__(self, loop: asyncio.AbstractEventLoop, job: Callable[[], None], context: Context) -> None:
        self._loop = loop
        self._job = job
        self._context = context
        self._for_the_loop = _taken()
        self._for_the_thread = _taken()
        self._question: Coroutine[Any, Any, Any] | None = None
        self._answer: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        """In the loop: run the job, up to its end or to its first question."""
        hand = _idle.pop() if _idle else _Hand()
        hand.take(self)
        self._stand()

    def run(self) -> None:
        """In a thread."""
        _here.turn = self
        self._context.copy().run(self._job)

    def ended(self) -> None:
        """In the thread, which has nothing to do any more."""
        self._for_the_loop.release()

    def _stand(self) -> None:
        if not self._for_the_loop.acquire(timeout=60):
            raise AssertionError("a thread of the engine waits for something else than a store")
        question, self._question = self._question, None
        if question is not None:
            self._answer = self._loop.create_task(question)
            self._answer.add_done_callback(self._answered)

    def _answered(self, _: asyncio.Task[Any]) -> None:
        self._for_the_thread.release()
        self._stand()

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        """In the thread."""
        self._question = question
        self._for_the_loop.release()
        self._for_the_thread.acquire()
        assert self._answer is not None
        return self._answer.result()  # type: ignore[no-any-return]  # of the question


class _Hand:
    """A thread that takes one turn after the other."""

    def __init__(self) -> None:
        self._turn: _Turn
        self._work = _taken()
        threading.Thread(target=self._serve, daemon=True).start()

    def take(self, turn: _Turn) -> None:
        """Run its job."""
        self._turn = turn
        self._work.release()

    def _serve(self) -> None:
        while True:
            self._work.acquire()
            turn = self._turn
            try:
                turn.run()
            except BaseException:  # a fault of the engine: the thread stays for others
                log.exception("internal error")
            _idle.append(self)
            turn.ended()


_idle: list[_Hand] = []  # the loop stands while one is added


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
