"""Processes of a simulated machine: tasks and timers that can be killed at any await, and then have no effect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from faults.backends import Backend
from faults.clock import VirtualLoop
from faults.pipe import End

from cloaca.store import Store

T = TypeVar("T")

CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Killed(asyncio.CancelledError):
    """The process that made this call is dead: nothing that it does counts any more."""


class Process:
    """One process. What runs in its context dies with it, and with its parent."""

    def __init__(self, name: str, parent: Process | None = None) -> None:
        self.name = name
        self.parent = parent
        self.alive = True
        self.given_up = False  # somebody else does its work
        self.tasks: set[asyncio.Task[Any]] = set()
        self.opened: Opened | None = None  # its store; None: it has none (yet)
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
        self.given_up = True
        outside = copy_context()
        outside.run(CURRENT.set, None)
        for call in self._on_given_up:
            outside.run(call)

    def check(self) -> None:
        """Raise Killed where it is dead."""
        if not self.alive:
            raise Killed(self.name)


class Opened:
    """The store as one process has it: opened at its first call, closed when the process is dead.

    What was sent to a server is done there, whatever becomes of the process that sent it.
    """

    def __init__(self, loop: Loop, backend: Backend, component: str) -> None:
        self.loop = loop
        self._backend = backend
        self._component = component
        self._opening: asyncio.Task[Store] | None = None
        self._sent: set[asyncio.Task[Any]] = set()

    async def store(self) -> Store:
        """The store itself."""
        if self._opening is None:
            self._opening = self.loop.outside(self._backend.open(self._component))
        return await asyncio.shield(self._opening)

    async def call(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """What ``work`` gives."""
        if not self._backend.waits:
            return await work(await self.store())

        async def sent() -> T:
            return await work(await self.store())

        task = self.loop.outside(sent())
        self._sent.add(task)
        task.add_done_callback(self._sent.discard)
        return await asyncio.shield(task)

    def close(self) -> None:
        """The process is dead."""
        if self._opening is not None:
            self.loop.outside(self._close(self._opening), waits=False)  # some give their connections time to end

    async def _close(self, opening: asyncio.Task[Store]) -> None:
        await asyncio.wait({opening, *self._sent})
        if opening.exception() is None:
            await self._backend.let_go(opening.result())


class Loop(VirtualLoop):
    """A loop that knows in which process a task or a timer was made."""

    def __init__(self) -> None:
        super().__init__()
        self.set_task_factory(_in_its_process)
        self._outside: set[asyncio.Task[Any]] = set()

    async def create_connection(self, protocol_factory: Any, *address: Any, sock: Any = None, **options: Any) -> Any:
        if not isinstance(sock, End):
            return await super().create_connection(protocol_factory, *address, sock=sock, **options)
        protocol = protocol_factory()
        sock.attach(protocol)
        return sock, protocol

    def outside(self, work: Coroutine[Any, Any, T], *, waits: bool = True) -> asyncio.Task[T]:
        """Do ``work`` in no process, so that it comes to its end. ``waits``: for a server, while no time passes."""
        context = copy_context()
        context.run(CURRENT.set, None)
        task: asyncio.Task[T] = context.run(self.create_task, self._attended(work) if waits else work)
        self._outside.add(task)
        task.add_done_callback(self._outside.discard)
        return task

    async def _attended(self, work: Coroutine[Any, Any, T]) -> T:
        self.busy += 1
        try:
            return await work
        finally:
            self.busy -= 1

    async def rest(self) -> None:
        """Return when nothing is done outside any more."""
        while self._outside:
            await asyncio.wait(self._outside)

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
