"""TaskHandle: lets a task give up its concurrency slot while it waits for something outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Slots(Protocol):
    """How many tasks may run at once; an asyncio.Semaphore is one."""

    async def acquire(self) -> Any:
        """Wait for a slot and take it."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


class TaskHandle:
    """What a task gets as its second parameter, if that is named ``handle`` or ``task_handle``."""

    def __init__(self, task_id: str, slots: Slots, loop: asyncio.AbstractEventLoop) -> None:
        self.task_id = task_id
        self._slots = slots
        self._loop = loop
        self._held = True

    def is_slot_held(self) -> bool:
        """Whether the task counts against the limit of tasks at once now."""
        return self._held

    def slot_lost(self) -> None:
        """The engine gave the slot back, between two tries."""
        self._held = False

    def slot_taken(self) -> None:
        """The engine took a slot for the next try."""
        self._held = True

    def defer_until(self, condition: Callable[[], Any], poll_interval_ms: int = 1000) -> Awaitable[None] | None:
        """Wait until ``condition()`` is true, asking every ``poll_interval_ms``, without holding the slot meanwhile.

        In an ordinary task the call blocks; in an ``async def`` task it is awaited, and ``condition`` may be async.
        """
        if poll_interval_ms <= 0:
            raise ValueError(f"poll_interval_ms is {poll_interval_ms!r}, but must be above 0")
        try:
            inside = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            inside = False
        if inside:
            return self._defer(condition, poll_interval_ms / 1000)
        if condition():
            return None
        self._held = False
        self._loop.call_soon_threadsafe(self._slots.release)
        try:
            while not condition():
                time.sleep(poll_interval_ms / 1000)
        finally:
            asyncio.run_coroutine_threadsafe(self._take(), self._loop).result()
        return None

    async def _defer(self, condition: Callable[[], Any], seconds: float) -> None:
        if await _answer(condition):
            return
        self._held = False
        self._slots.release()
        try:
            while not await _answer(condition):
                await asyncio.sleep(seconds)
        finally:
            await self._take()

    async def _take(self) -> None:
        await self._slots.acquire()
        self._held = True


async def _answer(condition: Callable[[], Any]) -> bool:
    answer = condition()
    return bool(await answer if asyncio.iscoroutine(answer) else answer)
