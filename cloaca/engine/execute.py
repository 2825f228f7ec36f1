"""Drive one run: start what is ready, in parallel, record what finished, before anything that builds on it starts."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Protocol

from cloaca.authoring.context import Context, plain
from cloaca.authoring.task import TaskDefinition
from cloaca.authoring.workflow import Workflow
from cloaca.engine.handle import TaskHandle
from cloaca.engine.progress import Progress
from cloaca.engine.retry import retry_delay
from cloaca.errors import ContextError, TaskResultError, TaskTimeout
from cloaca.resources.run import RunPhase, RunStatus

log = logging.getLogger("cloaca.engine")

CONTEXT_LIMIT = 256 * 1024  # bytes of JSON; a reference to stored data belongs into a context, not the data
_SHOW_AFTER = 0.05  # seconds until a task that got its slot late, or failed a try, is shown in the status


class StopReason(str, Enum):
    """Why a run is stopped before its end."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    INTERRUPTED = "interrupted"
    """This process must go; another one resumes."""


class Stop:
    """Asks a run to stop; the first reason given holds. Belongs to the loop that executes the run."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._event = asyncio.Event()

    def request(self, reason: StopReason) -> None:
        """Stop as soon as possible."""
        if self.reason is None:
            self.reason = reason
            self._event.set()

    async def wait(self) -> None:
        """Return when a stop was requested."""
        await self._event.wait()


class Journal(Protocol):
    """Where a run's status is recorded."""

    async def write(self, status: RunStatus) -> None:
        """Return when ``status`` is durable. Raises when this process must not write it any more."""
        ...


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What the tasks of one process share, whatever run they belong to."""

    pool: Executor  # threads for sync tasks
    slots: asyncio.Semaphore  # how many tasks run at once
    task_timeout: float | None  # seconds; None: no limit but a task's own
    context_limit: int = CONTEXT_LIMIT


async def execute(
    workflow: Workflow,
    context: Mapping[str, Any],
    recorded: RunStatus,
    journal: Journal,
    workshop: Workshop,
    stop: Stop,
) -> RunStatus:
    """Run ``workflow`` from what is ``recorded`` to its end; returns the status that was written last.

    A failing task fails the run and skips its dependents; it never raises. What raises is the journal.
    """
    return await _Execution(workflow, context, recorded, journal, workshop, stop).run()


class _Execution:
    def __init__(
        self,
        workflow: Workflow,
        context: Mapping[str, Any],
        recorded: RunStatus,
        journal: Journal,
        workshop: Workshop,
        stop: Stop,
    ) -> None:
        self._workflow = workflow
        self._journal = journal
        self._workshop = workshop
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._progress = Progress(workflow.dependencies, context, recorded)
        self._running: dict[asyncio.Task[dict[str, Any]], str] = {}
        self._changed = asyncio.Event()  # something is worth showing, though no task finished

    async def run(self) -> RunStatus:
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            while not self._progress.finished:
                gate = await self._launch()
                await self._write(RunPhase.RUNNING)
                gate.set()
                await self._until_something_happens(stopping)
                if self._stop.reason is not None:
                    return await self._stopped(self._stop.reason)
            return await self._write(RunPhase.FAILED if self._progress.failed else RunPhase.COMPLETED)
        finally:
            stopping.cancel()
            await self._abandon()

    async def _launch(self) -> asyncio.Event:
        """Start what became ready, up to the point where the caller has recorded it and sets the event."""
        gate = asyncio.Event()
        ready = self._progress.take_ready()
        for task in ready:
            started = self._loop.create_task(self._perform(self._workflow.tasks[task], gate))
            self._running[started] = task
        if ready:
            await asyncio.sleep(0)  # lets those that find a slot free be recorded as running at once
        return gate

    async def _until_something_happens(self, stopping: asyncio.Future[None]) -> None:
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({*self._running, changed, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        self._changed.clear()
        for done in [task for task in self._running if task.done()]:
            self._settle(self._running.pop(done), done)

    def _settle(self, task: str, done: asyncio.Task[dict[str, Any]]) -> None:
        error = done.exception()
        if error is None:
            self._progress.completed(task, done.result(), _now())
        elif isinstance(error, _GaveUp):
            self._progress.gave_up(task, describe(error.error), traceback_of(error.error), _now())
        else:  # a fault of the engine, not of the task: say all of it
            self._progress.gave_up(task, f"internal error: {describe(error)}", traceback_of(error), _now())

    async def _write(self, phase: RunPhase) -> RunStatus:
        status = self._progress.status(phase=phase, now=_now())
        if phase is RunPhase.COMPLETED and status.context is not None:
            too_large = _oversize(status.context, self._workshop.context_limit)
            if too_large:
                status = status.model_copy(
                    update={
                        "phase": RunPhase.FAILED,
                        "context": None,
                        "message": f"the final context of workflow {self._workflow.name!r} {too_large}",
                    }
                )
        await self._journal.write(status)
        return status

    async def _stopped(self, reason: StopReason) -> RunStatus:
        await self._abandon()
        if reason is StopReason.INTERRUPTED:
            self._progress.interrupted()
            return await self._write(RunPhase.PENDING)
        if reason is StopReason.DEADLINE:
            self._progress.cancelled(_now(), "the run took longer than its deadline (activeDeadlineSeconds)")
            return await self._write(RunPhase.FAILED)
        self._progress.cancelled(_now(), "cancelled")
        return await self._write(RunPhase.CANCELLED)

    async def _abandon(self) -> None:
        """Cancel what runs. A sync function cannot be stopped in its thread: its late result is ignored."""
        running = list(self._running)
        self._running.clear()
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    # --- one task

    async def _perform(self, definition: TaskDefinition, gate: asyncio.Event) -> dict[str, Any]:
        """Try the task until it completes or its retry policy gives up (_GaveUp); returns its context."""
        inputs = self._progress.input_of(definition.id)
        slots = self._workshop.slots
        waited = slots.locked()
        await slots.acquire()
        handle = TaskHandle(definition.id, slots, self._loop)
        try:
            while True:
                self._progress.started(definition.id, _now())
                if waited or gate.is_set():
                    self._show_soon()
                await gate.wait()
                context = Context()
                context._data = plain(inputs, "context")  # a fresh copy for each try
                try:
                    result = await self._call(definition, context, handle)
                except Exception as error:  # whatever user code raises is the task's failure
                    delay = retry_delay(
                        definition.retry, self._progress.attempts_of(definition.id), error, random.random()
                    )
                    if delay is None:
                        await self._callback(definition, "on_failure", definition.id, describe(error), context)
                        raise _GaveUp(error) from error
                    self._progress.retrying(definition.id, f"retrying in {delay:.1f} s: {describe(error)}")
                    self._show_soon()
                    slots.release()
                    handle.slot_lost()
                    await asyncio.sleep(delay)
                    await slots.acquire()
                    handle.slot_taken()
                else:
                    await self._callback(definition, "on_success", definition.id, result)
                    return result.to_dict()
        finally:
            if handle.is_slot_held():
                slots.release()

    async def _call(self, definition: TaskDefinition, context: Context, handle: TaskHandle) -> Context:
        arguments = (context, handle) if definition.takes_handle else (context,)
        attempt: asyncio.Future[_Ended]
        if definition.is_async:
            attempt = self._loop.create_task(_ended_async(definition.function, arguments))
        else:
            attempt = self._loop.run_in_executor(self._workshop.pool, _ended, definition.function, arguments)
        timeout = definition.timeout_seconds or self._workshop.task_timeout
        try:
            await asyncio.wait({attempt}, timeout=timeout)
        except asyncio.CancelledError:
            attempt.cancel()
            raise
        if not attempt.done():
            attempt.cancel()
            raise TaskTimeout(f"task {definition.id!r} took longer than its {timeout:g} s")
        ended = attempt.result()
        if ended.error is not None:
            raise ended.error
        return checked_result(definition.id, ended.value, context, self._workshop.context_limit)

    async def _callback(self, definition: TaskDefinition, which: str, *arguments: Any) -> None:
        callback = getattr(definition, which)
        if callback is None:
            return
        ended = await self._loop.run_in_executor(self._workshop.pool, _ended, callback, arguments)
        if ended.error is None and asyncio.iscoroutine(ended.value):
            ended = await _ended_async(lambda: ended.value, ())
        if ended.error is not None:
            log.warning("task %r: its %s callback raised %s", definition.id, which, describe(ended.error))

    def _show_soon(self) -> None:
        self._loop.call_later(_SHOW_AFTER, self._changed.set)


class _GaveUp(Exception):
    """A task failed for good; ``error`` says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class _Ended:
    """How a call of user code ended. A value, since SystemExit and KeyboardInterrupt would tear down the loop."""

    value: Any = None
    error: Exception | None = None


def _ended(function: Callable[..., Any], arguments: tuple[Any, ...]) -> _Ended:
    try:
        return _Ended(function(*arguments))
    except Exception as error:  # noqa: BLE001  # it travels to the caller as a value
        return _Ended(error=error)
    except BaseException as error:  # noqa: BLE001  # SystemExit of a task must not end the process
        return _Ended(error=_as_exception(error))


async def _ended_async(function: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> _Ended:
    try:
        return _Ended(await function(*arguments))
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001  # it travels to the caller as a value
        return _Ended(error=error)
    except BaseException as error:  # noqa: BLE001  # SystemExit of a task must not end the process
        return _Ended(error=_as_exception(error))


def _as_exception(error: BaseException) -> Exception:
    wrapped = RuntimeError(f"{type(error).__name__}({error})")
    wrapped.__cause__ = error
    return wrapped


def checked_result(task: str, result: Any, context: Context, limit: int) -> Context:
    """The context that a task ended with: what it returned, or the one it was given where it returned None.

    Raises TaskResultError for anything else that it returned, ContextError where the context holds what JSON cannot,
    or more than ``limit`` bytes.
    """
    if result is None:
        result = context
    if not isinstance(result, Context):
        raise TaskResultError(
            f"task {task!r} returned {type(result).__qualname__}; return the context, or nothing after changing it"
        )
    checked = Context(result.to_dict())  # nested values may have been changed behind the context's back
    too_large = _oversize(checked.to_dict(), limit)
    if too_large:
        raise ContextError(f"the context after task {task!r} {too_large}")
    return checked


def _oversize(data: Mapping[str, Any], limit: int) -> str | None:
    size = len(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())
    if size <= limit:
        return None
    largest = max(data, key=lambda key: len(json.dumps(data[key])))
    return (
        f"is {size:,} bytes as JSON, over the limit of {limit:,} (largest key: {largest!r}): "
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
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))


def _now() -> datetime:
    return datetime.now(timezone.utc)
