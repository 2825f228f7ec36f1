"""TaskHandle: lets a task give up its concurrency slot while it waits for something outside."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from cloaca.engine.loop import runs_in
from cloaca.engine.slots import Slots
from cloaca.errors import TaskTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from cloaca.engine.loop import Loop

_account = threading.Lock()  # of every handle's slot: held for an instant only

current_handle: ContextVar[TaskHandle | None] = ContextVar("cloaca_handle", default=None)
"""The handle of the task that is running: of its thread or coroutine, and of ``asyncio.to_thread`` calls made there."""


def _new_account() -> None:
    global _account  # another thread of the parent may have held it when this process was forked
    _account = threading.Lock()


os.register_at_fork(after_in_child=_new_account)


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

    def __init__(self, task_id: str, slots: Slots, loop: Loop) -> None:
        self.task_id = task_id
        self._slots = slots
        self._loop = loop
        self._held = True  # whoever makes a handle has taken a slot for it
        self._ended = False
        self._nested = 0  # how many threads of the task wait for a run that they execute
        self._wakes: set[Callable[[], None]] = set()  # of threads of the task that wait, called when the try ends
        self._abandoned = False  # it ended since it was cancelled or took too long
        self._cancels: set[Callable[[], None]] = set()  # of those runs, called when the try is abandoned

    def is_slot_held(self) -> bool:
        """Whether the task counts against the limit of tasks at once now.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("wait"):
        ...     @cloaca.task()
        ...     def waits(context, handle):
        ...         context["before"] = handle.is_slot_held()
        ...         handle.defer_until(lambda: True)
        ...         context["afterwards"] = handle.is_slot_held()
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     runner.execute("wait").final_context["afterwards"]
        True
        """
        return self._held

    def defer_until(self, condition: Callable[[], Any], poll_interval_ms: int = 1000) -> Awaitable[None] | None:
        """Wait until ``condition()`` is true, asking every ``poll_interval_ms``, without holding the slot meanwhile.

        In an ordinary task the call blocks; in an ``async def`` task it is awaited, and ``condition`` may be async.
        Raises TaskTimeout where the task's time is over before the condition holds.

        >>> import cloaca
        >>> answers = iter([False, True])
        >>> with cloaca.WorkflowBuilder("wait"):
        ...     @cloaca.task()
        ...     async def waits(context, handle):
        ...         await handle.defer_until(lambda: next(answers), poll_interval_ms=10)
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     runner.execute("wait").status
        'Completed'
        """
        if not callable(condition):
            raise TypeError(f"defer_until takes a function to ask, not {type(condition).__qualname__}")
        if not poll_interval_ms > 0:
            raise ValueError(f"poll_interval_ms is {poll_interval_ms!r}, but must be above 0")
        if runs_in(self._loop):
            return self._defer(condition, poll_interval_ms / 1000)
        self._defer_in_thread(condition, poll_interval_ms / 1000)
        return None

    async def _defer(self, condition: Callable[[], Any], seconds: float) -> None:
        import asyncio

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
        self._let_go()
        changed = threading.Event()
        wake = changed.set
        self._wakes.add(wake)
        try:
            while not condition() and not self._ended:
                changed.wait(seconds)
        except BaseException:
            self._take_in_thread()
            raise
        finally:
            self._wakes.discard(wake)
        self._take_in_thread()

    def _take_in_thread(self) -> None:
        granted = threading.Event()
        wake = granted.set
        self._wakes.add(wake)
        try:
            if self._ended:
                raise self._given_up()
            if not self._slots.take(wake):
                granted.wait()  # until there is a slot, or the try is over
                if self._ended and self._slots.withdraw(wake):
                    raise self._given_up()
        finally:
            self._wakes.discard(wake)
        self._keep()

    async def _take(self) -> None:
        import asyncio

        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def grant() -> None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_resolve, granted)

        if self._ended:
            raise self._given_up()
        if not self._slots.take(grant):
            try:
                await granted
            except asyncio.CancelledError:  # the try is over
                if not self._slots.withdraw(grant):
                    self._slots.give()
                raise
        self._keep()

    def _keep(self) -> None:
        """Keep the slot that was taken, unless the try is over, has one, or waits for a run that it executes."""
        with _account:
            ended = self._ended
            surplus = ended or self._held or self._nested > 0
            self._held = self._held or not surplus
        if surplus:
            self._slots.give()
        if ended:
            raise self._given_up()

    # --- for the engine

    def wait_for_run(self, wait: Callable[[], None], cancel: Callable[[], None]) -> None:
        """Call ``wait``, in a thread of the task, without holding the slot; then take the slot again.

        Where several threads of the task wait at once, the last one to return takes it: a slot that was taken while
        another thread still waits could be the one that its run needs. ``cancel`` is called if the try is given up
        meanwhile; then this raises TaskTimeout after ``wait`` has returned. It raises TaskTimeout at once if the try
        was given up before.
        """
        with _account:
            if self._abandoned:
                raise self._given_up()
            self._nested += 1
            self._cancels.add(cancel)
        self._let_go()
        try:
            wait()
        finally:
            with _account:
                self._nested -= 1
                self._cancels.discard(cancel)
                take = self._nested == 0 and (self._abandoned or not self._ended)
            if take:  # else another thread will, or the task has returned and this thread goes on without it
                self._take_in_thread()

    def close(self, *, given_up: bool = False) -> None:
        """The try has ended: give the slot back if it is held. A function that still waits in its thread wakes up.

        ``given_up``: the try was cancelled or took too long, so that runs which it waits for are cancelled too.
        """
        with _account:
            self._ended = True
            self._abandoned = self._abandoned or given_up
            held, self._held = self._held, False
            wakes = [*self._wakes, *(self._cancels if given_up else ())]
        if held:
            self._slots.give()
        for wake in wakes:
            wake()

    def _let_go(self) -> None:
        with _account:
            held, self._held = self._held, False
        if held:
            self._slots.give()

    def _given_up(self) -> TaskTimeout:
        return TaskTimeout(f"task {self.task_id!r} was given up while it waited")


def _resolve(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)


async def _answer(condition: Callable[[], Any]) -> bool:
    answer = condition()
    return bool(await answer if isinstance(answer, Coroutine) else answer)
