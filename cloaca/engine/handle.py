"""TaskHandle: lets a task give up its concurrency slot while it waits for something outside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from cloaca.errors import TaskTimeout

_account = threading.Lock()  # of every handle's slot: held for an instant only


class TaskHandle:
    """What a task gets as its second parameter, if that is named ``handle`` or ``task_handle``.

    It belongs to one try of the task, and keeps the account of that try's slot.

    >>> import cloaca
    >>> with cloaca.WorkflowBuilder("wait"):
    ...     @cloaca.task()
    ...     def waits(context, handle):
    ...         handle.defer_until(lambda: True, poll_interval_ms=10)
    ...         context["held"] = handle.is_slot_held()
    >>> with cloaca.DefaultRunner(":memory:") as runner:
    ...     runner.execute("wait").final_context["held"]
    True
    """

    def __init__(self, task_id: str, slots: asyncio.Semaphore, loop: asyncio.AbstractEventLoop) -> None:
        self.task_id = task_id
        self._slots = slots
        self._loop = loop
        self._held = True  # whoever makes a handle has taken a slot for it
        self._ended = False
        self._waiting: threading.Event | None = None  # a function that waits in its thread

    def is_slot_held(self) -> bool:
        """Whether the task counts against the limit of tasks at once now."""
        return self._held

    def defer_until(self, condition: Callable[[], Any], poll_interval_ms: int = 1000) -> Awaitable[None] | None:
        """Wait until ``condition()`` is true, asking every ``poll_interval_ms``, without holding the slot meanwhile.

        In an ordinary task the call blocks; in an ``async def`` task it is awaited, and ``condition`` may be async.
        Raises TaskTimeout where the task's time is over before the condition holds.
        """
        if not callable(condition):
            raise TypeError(f"defer_until takes a function to ask, not {type(condition).__qualname__}")
        if not poll_interval_ms > 0:
            raise ValueError(f"poll_interval_ms is {poll_interval_ms!r}, but must be above 0")
        try:
            on_loop = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            on_loop = False
        if on_loop:
            return self._defer(condition, poll_interval_ms / 1000)
        self._defer_in_thread(condition, poll_interval_ms / 1000)
        return None

    async def _defer(self, condition: Callable[[], Any], seconds: float) -> None:
        if await _answer(condition):
            return
        self._let_go()
        try:
            while not await _answer(condition):
                await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            raise  # the try is over: a slot taken now would be one too many
        except BaseException:
            await self._take()
            raise
        await self._take()

    def _defer_in_thread(self, condition: Callable[[], Any], seconds: float) -> None:
        if condition():
            return
        if self._marked_free():
            self._loop.call_soon_threadsafe(self._slots.release)
        self._waiting = threading.Event()
        try:
            while not condition() and not self._ended:
                self._waiting.wait(seconds)
        except BaseException:
            self._take_from_thread()
            raise
        self._take_from_thread()

    def _take_from_thread(self) -> None:
        if self._ended:
            raise self._given_up()
        asyncio.run_coroutine_threadsafe(self._take(), self._loop).result()

    # --- on the loop

    def close(self) -> None:
        """The try has ended: give the slot back if it is held. A function that still waits in its thread wakes up."""
        self._ended = True
        if self._waiting is not None:
            self._waiting.set()
        self._let_go()

    def _let_go(self) -> None:
        if self._marked_free():
            self._slots.release()

    async def _take(self) -> None:
        if not self._ended:
            await self._slots.acquire()
            self._held = True
        if self._ended:
            self._let_go()
            raise self._given_up()

    def _marked_free(self) -> bool:
        """Whether this call, and no other at the same time, took the mark that the slot is held."""
        with _account:
            held, self._held = self._held, False
        return held

    def _given_up(self) -> TaskTimeout:
        return TaskTimeout(f"task {self.task_id!r} was given up while it waited")


async def _answer(condition: Callable[[], Any]) -> bool:
    answer = condition()
    return bool(await answer if asyncio.iscoroutine(answer) else answer)
