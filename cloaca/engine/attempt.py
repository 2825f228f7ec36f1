"""Make one try of a task: call its function, in a thread or on the loop, within its time, and check what it returned.

Knows nothing of runs, retries and records. No object of user code leaves it: an exception leaves as its description,
and a result as what is kept of it. Both are made where the function was called, since both may call user code.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import Context as Variables
from types import CoroutineType
from typing import Any, NamedTuple

from cloaca.authoring.context import CONTEXT_LIMIT, Context, plain
from cloaca.engine.crew import Crew
from cloaca.engine.handle import TaskHandle, current_handle
from cloaca.engine.record import Kept, json_text
from cloaca.engine.timers import Timer, Timers
from cloaca.errors import ContextError, TaskResultError, TaskTimeout
from cloaca.failure import Failure, class_name, failure_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future, Task

    from cloaca.engine.loop import Loop


class Ended(NamedTuple):
    """How a call of user code ended."""

    value: Any = None
    failure: Failure | None = None  # None: it ended well, with ``value``
    timed_out: bool = False  # it was given up at its time limit, and may go on in its thread


def ignored(_: Any) -> None:
    """Nothing is kept of what the function returned."""


class Call:
    """One call of user code, in a thread or on the loop, which ends once: by itself, by its time limit or by ``drop``.

    A function on the loop is cancelled when its call is over; one in a thread cannot be stopped, and what it returns
    later is ignored.
    """

    __slots__ = (
        "_arguments",
        "_awaitable",
        "_function",
        "_keep",
        "_limit",
        "_loop",
        "_open",
        "_task",
        "_timer",
        "_variables",
        "handle",
        "is_async",
        "over",
        "tell",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        is_async: bool,
        loop: Loop,
        variables: Variables,
        tell: Callable[[Call, Ended], None],
        over: Callable[[], None],
        keep: Callable[[Any], Any] = ignored,
    ) -> None:
        """``keep`` makes the value of the end from what the function returned; it may raise, as the function may."""
        self._function = function
        self._arguments = arguments
        self._keep = keep
        self._loop = loop
        self._open = threading.Lock()  # taken once, by whatever ends the call
        self._variables = variables  # the context variables that the function finds, and may change
        self._awaitable: Awaitable[Any] | None = None  # what a function in a thread returned
        self._task: Task[None] | None = None
        self._limit = math.inf  # seconds
        self._timer: Timer | None = None
        self.handle: TaskHandle | None = None  # of the task that the function belongs to; None: of none
        self.is_async = is_async
        self.tell = tell  # gets this and its end, in whatever thread; called once, unless it is dropped
        self.over = over  # called after ``tell`` where that was not in the thread of ``make``

    def limit(self, seconds: float, timers: Timers) -> None:
        """End it with TaskTimeout after ``seconds`` from now."""
        self._limit = seconds
        self._timer = timers.after(seconds, self._expire)

    def make(self, crew: Crew) -> None:
        """Call the function in this thread, one of ``crew``'s, and tell how it ended; not if it is over already."""
        if self._open.locked():
            return
        self._variables.run(current_handle.set, self.handle)
        ended: Ended = crew.call(self._variables.run, (self._outcome,))
        if self._awaitable is not None:
            self.start()
        elif self._close():
            self.tell(self, ended)

    def _outcome(self) -> Ended:
        """How the function ended, unless it returned an awaitable, which is put aside. Never raises."""
        try:
            returned = self._function(*self._arguments)
            if isinstance(returned, Awaitable):  # an async function behind a sync decorator
                self._awaitable = returned
                return Ended()
            return Ended(self._keep(returned))
        except BaseException as error:  # noqa: BLE001  # SystemExit of a task must not end the process
            return Ended(failure=failure_of(error))

    def start(self) -> None:
        """Call the function, an async one, on the loop."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._begin)

    def drop(self) -> None:
        """It is over, and nobody wants to know how it ends."""
        self._close()

    def _begin(self) -> None:
        if not self._open.locked():
            self._task = self._variables.run(self._loop.create_task, self._on_loop())
        elif isinstance(self._awaitable, CoroutineType):
            self._awaitable.close()

    def _asked(self) -> Awaitable[Any]:
        """What is to be awaited."""
        return self._function(*self._arguments) if self._awaitable is None else self._awaitable

    async def _on_loop(self) -> None:
        from asyncio import CancelledError

        current_handle.set(self.handle)
        try:
            ended = Ended(self._keep(await self._asked()))
        except CancelledError as error:
            if self._open.locked():
                raise
            ended = Ended(failure=failure_of(error))  # its own doing: we cancel only what is over
        except BaseException as error:  # noqa: BLE001  # SystemExit of a task must not end the process
            ended = Ended(failure=failure_of(error))
        self._task = None
        self._end(ended)

    def _expire(self) -> None:
        failure = failure_of(TaskTimeout(f"it took longer than its {self._limit:g} s"))
        self._end(Ended(failure=failure, timed_out=True))

    def _end(self, ended: Ended) -> None:
        if self._close():
            self.tell(self, ended)
            self.over()

    def _close(self) -> bool:
        """Whether it is this that ends the call."""
        if not self._open.acquire(blocking=False):
            return False
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._task.cancel)
        return True


async def call(
    function: Callable[..., Any], *, is_async: bool, crew: Crew, keep: Callable[[Any], Any] = ignored
) -> Ended:
    """Call ``function``: on the running loop if it is async, else in a thread of ``crew``. Given up when cancelled.

    ``keep``, called in the same place, makes the value of the end from what the function returned.
    """
    from asyncio import get_running_loop

    loop = get_running_loop()
    outcome: Future[Ended] = loop.create_future()

    def tell(_: Call, ended: Ended) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, outcome, ended)

    variables = crew.fresh_context()
    calling = Call(
        function, (), is_async=is_async, loop=loop, variables=variables, tell=tell, over=lambda: None, keep=keep
    )
    if is_async:
        calling.start()
    else:
        try:
            crew.submit(functools.partial(calling.make, crew))
        except RuntimeError as error:  # the system has no more threads
            return Ended(failure=failure_of(error))
    try:
        return await outcome
    finally:
        calling.drop()


def _resolve(outcome: Future[Ended], ended: Ended) -> None:
    if not outcome.done():
        outcome.set_result(ended)


def checked_result(result: Any, given: Context, limit: int = CONTEXT_LIMIT) -> Kept:
    """What a task ended with: the context that it returned, or the one it was given where it returned None; a copy.

    Raises TaskResultError for anything else that it returned, ContextError where the context holds what JSON cannot,
    or more than ``limit`` bytes.
    """
    if result is None:
        result = given
    if not issubclass(type(result), Context):
        raise TaskResultError(
            f"the task returned {class_name(result)}; return the context, or nothing after changing it"
        )
    data: dict[str, Any] = plain(result, "context")  # nested values may have been changed behind the context's back
    return Kept(data, check_size(data, limit))


def check_size(data: Mapping[str, Any], limit: int = CONTEXT_LIMIT) -> str:
    """``data`` as JSON. Raises ContextError, which names the largest key, where that is over ``limit`` bytes."""
    text = json_text(data)
    size = len(text) if text.isascii() else len(text.encode())
    if size <= limit:
        return text
    largest = max(data, key=lambda key: len(json_text(data[key])))
    raise ContextError(
        f"the context is {size:,} bytes as JSON, over the limit of {limit:,} (largest key: {largest!r}): "
        "store the data elsewhere and keep a reference to it in the context"
    )
