"""Processes of a simulated machine: tasks and timers that can be killed at any await, and then have no effect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

from faults.clock import VirtualLoop

CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Killed(asyncio.CancelledError):
    """The process that made this call is dead: nothing that it does counts any more."""


class Process:
    """One process. What runs in its context dies with it, and with its parent."""

    def __init__(self, name: str, parent: Process | None = None) -> None:
        self.name = name
        self.parent = parent
        self.alive = True
        self.tasks: set[asyncio.Task[Any]] = set()
        self._children: list[Process] = []
        self._on_end: list[Callable[[], None]] = []
        self._on_given_up: list[Callable[[], None]] = []
        if parent is not None:
            parent._children.append(self)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` in it."""
        context = copy_context()
        context.run(CURRENT.set, self)
        return context.run(asyncio.get_running_loop().create_task, work)

    def on_end(self, call: Callable[[], None]) -> None:
        """Call ``call`` (outside of the process) when it was killed."""
        self._on_end.append(call)

    def kill(self) -> None:
        """End it at whatever await it is. Idempotent."""
        if not self.alive:
            return
        self.alive = False
        for child in self._children:
            child.kill()
        for task in tuple(self.tasks):
            task.cancel()
        outside = copy_context()
        outside.run(CURRENT.set, None)
        for call in self._on_end:
            outside.run(call)

    def on_given_up(self, call: Callable[[], None]) -> None:
        """Call ``call`` (outside of the process) when it is taken for dead."""
        self._on_given_up.append(call)

    def give_up(self) -> None:
        """Have whoever looks after it believe that it is dead: its machine was not heard of for long."""
        outside = copy_context()
        outside.run(CURRENT.set, None)
        for call in self._on_given_up:
            outside.run(call)

    def check(self) -> None:
        """Raise Killed where it is dead."""
        if not self.alive:
            raise Killed(self.name)


class Loop(VirtualLoop):
    """A loop that knows in which process a task or a timer was made."""

    def __init__(self) -> None:
        super().__init__()
        self.set_task_factory(_in_its_process)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, **options: Any) -> asyncio.TimerHandle:
        process = CURRENT.get()
        if process is None:
            return super().call_at(when, callback, *args, **options)
        return super().call_at(when, _if_alive, process, callback, *args, **options)


def _if_alive(process: Process, callback: Callable[..., Any], *args: Any) -> None:
    if process.alive:
        callback(*args)


def _in_its_process(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    process = CURRENT.get()
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
        if not process.alive:
            task.cancel()
    return task
