"""Make one try of a task: call its function, in a thread or on the loop, within its time, and check what it returned.

Knows nothing of runs, retries and records; no error of user code leaves it as an exception.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from cloaca.authoring.context import Context, plain
from cloaca.errors import ContextError, TaskResultError, TaskTimeout

CONTEXT_LIMIT = 256 * 1024  # bytes of JSON; a reference to stored data belongs into a context, not the data

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode


@dataclass(frozen=True)
class Ended:
    """How a call of user code ended. A value, since SystemExit and KeyboardInterrupt would tear down the loop."""

    value: Any = None
    error: Exception | None = None  # None: it returned ``value``


async def call(
    function: Callable[..., Any], arguments: tuple[Any, ...], *, is_async: bool, pool: Executor, timeout: float | None
) -> Ended:
    """Call ``function``: on the running loop if it is async, else in a thread of ``pool``.

    After ``timeout`` seconds, or when cancelled, it is given up: an async function is cancelled; a sync one cannot be
    stopped, and what it returns later is ignored.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Ended] = loop.create_future()
    attempt = None
    if is_async:
        attempt = loop.create_task(_on_loop(function, arguments, outcome))
    else:
        try:
            pool.submit(_in_thread, function, arguments, outcome, loop)
        except RuntimeError as error:  # the system has no more threads
            return Ended(error=error)
    timer = None if timeout is None else loop.call_later(timeout, _expire, outcome, timeout)
    try:
        ended = await outcome
    finally:
        if timer is not None:
            timer.cancel()
        if attempt is not None:
            attempt.cancel()
    if asyncio.iscoroutine(ended.value):  # an async function behind a sync decorator
        coroutine = ended.value
        return await call(lambda: coroutine, (), is_async=True, pool=pool, timeout=timeout)
    return ended


def _in_thread(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    outcome: asyncio.Future[Ended],
    loop: asyncio.AbstractEventLoop,
) -> None:
    try:
        ended = Ended(function(*arguments))
    except BaseException as error:  # noqa: BLE001  # SystemExit of a task must not end the process
        ended = Ended(error=_as_exception(error))
    try:
        loop.call_soon_threadsafe(_resolve, outcome, ended)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


async def _on_loop(
    function: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...], outcome: asyncio.Future[Ended]
) -> None:
    try:
        ended = Ended(await function(*arguments))
    except asyncio.CancelledError as error:
        if outcome.done():
            raise
        ended = Ended(error=_as_exception(error))  # its own doing: we cancel only when the outcome is known or dropped
    except BaseException as error:  # noqa: BLE001  # SystemExit of a task must not end the process
        ended = Ended(error=_as_exception(error))
    _resolve(outcome, ended)


def _resolve(outcome: asyncio.Future[Ended], ended: Ended) -> None:
    if not outcome.done():  # else it is late, and ignored
        outcome.set_result(ended)


def _expire(outcome: asyncio.Future[Ended], timeout: float) -> None:
    _resolve(outcome, Ended(error=TaskTimeout(f"it took longer than its {timeout:g} s")))


def _as_exception(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"{type(error).__name__}({error})")
    wrapped.__cause__ = error
    return wrapped.with_traceback(error.__traceback__)


def checked_result(result: Any, given: Context, limit: int = CONTEXT_LIMIT) -> dict[str, Any]:
    """What a task ended with: the context that it returned, or the one it was given where it returned None; a copy.

    Raises TaskResultError for anything else that it returned, ContextError where the context holds what JSON cannot,
    or more than ``limit`` bytes.
    """
    if result is None:
        result = given
    if not isinstance(result, Context):
        raise TaskResultError(
            f"the task returned {type(result).__qualname__}; return the context, or nothing after changing it"
        )
    data: dict[str, Any] = plain(result, "context")  # nested values may have been changed behind the context's back
    check_size(data, limit)
    return data


def check_size(data: Mapping[str, Any], limit: int = CONTEXT_LIMIT) -> None:
    """Raise ContextError, which names the largest key, where ``data`` is over ``limit`` bytes as JSON."""
    size = len(_encode(data).encode())
    if size <= limit:
        return
    largest = max(data, key=lambda key: len(_encode(data[key])))
    raise ContextError(
        f"the context is {size:,} bytes as JSON, over the limit of {limit:,} (largest key: {largest!r}): "
        "store the data elsewhere and keep a reference to it in the context"
    )


def describe(error: BaseException) -> str:
    """``ValueError: text``, or just the name where there is no text."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def traceback_of(error: BaseException) -> str:
    """The traceback of user code: without our own frames on top."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("cloaca."):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))
