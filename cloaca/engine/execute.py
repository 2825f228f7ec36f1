"""Drive one run: start what is ready, in parallel, record what finished, before anything that builds on it starts."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Protocol

from cloaca.authoring.context import Context
from cloaca.authoring.task import TaskDefinition
from cloaca.authoring.workflow import Workflow
from cloaca.engine.attempt import CONTEXT_LIMIT, Ended, call, check_size, checked_result, describe, traceback_of
from cloaca.engine.handle import TaskHandle
from cloaca.engine.progress import Progress
from cloaca.engine.retry import retry_delay
from cloaca.errors import CloacaError, ContextError
from cloaca.resources.run import RunPhase, RunStatus

log = logging.getLogger("cloaca.engine")

_GATHER = 0.02  # seconds that news wait for others to be recorded together with, where no task waits for the record
_TOO_LONG = (
    "the run took longer than its deadline: if it may, raise activeDeadlineSeconds "
    "(pipeline_timeout_seconds of a DefaultRunner)"
)


class StopReason(str, Enum):
    """Why a run is stopped before its end."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    INTERRUPTED = "interrupted"
    """This process must go; another one resumes."""


class Stop:
    """Asks a run to stop; the first reason given holds. Belongs to the loop that executes the run."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None  # None: go on
        self._listener: Callable[[], None] | None = None

    def request(self, reason: StopReason) -> None:
        """Stop as soon as possible."""
        if self.reason is None:
            self.reason = reason
            if self._listener is not None:
                self._listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when a stop is requested."""
        self._listener = listener


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
    """One run in this process. Tasks report their ends into ``_ended``; ``run`` alone moves the progress on."""

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
        self._prepared: list[tuple[TaskDefinition, TaskHandle | None]] = []  # None: it waits for a slot
        self._running: set[asyncio.Task[None]] = set()
        self._ended: list[tuple[str, Ended]] = []
        self._news_due = False  # what happened since the last write has waited long enough
        self._news_timer: asyncio.TimerHandle | None = None
        self._sleeper: asyncio.Future[None] | None = None

    async def run(self) -> RunStatus:
        self._stop.listen(self._wake)
        try:
            while self._stop.reason is None:
                news = self._settle_ended()
                if self._progress.finished:
                    return await self._conclude()
                ready = self._progress.take_ready()
                if ready or self._news_due:
                    await self._take_slots(ready)
                    await self._write(RunPhase.RUNNING)
                    self._start()
                    continue
                if news:
                    self._news()
                await self._sleep()
            return await self._stopped(self._stop.reason)
        finally:
            self._forget_news()
            await self._abandon()

    async def _take_slots(self, ready: list[str]) -> None:
        """Prepare what became ready: tasks that find a slot free are recorded as running, and then started."""
        slots = self._workshop.slots
        for task in ready:
            definition = self._workflow.tasks[task]
            handle = None
            if not slots.locked():
                await slots.acquire()
                handle = self._started(definition)
            self._prepared.append((definition, handle))

    def _start(self) -> None:
        prepared, self._prepared = self._prepared, []
        for definition, handle in prepared:
            performing = self._loop.create_task(self._perform(definition, handle))
            self._running.add(performing)
            performing.add_done_callback(self._running.discard)
            if handle is not None:  # cancelled before its first step, it could not close the handle itself
                performing.add_done_callback(functools.partial(_closed, handle))

    def _settle_ended(self) -> bool:
        """Move the progress on by the tasks that ended; whether there were any."""
        ended, self._ended = self._ended, []
        for task, end in ended:
            if end.error is None:
                self._progress.completed(task, end.value, _now())
            else:
                self._progress.gave_up(task, describe(end.error), traceback_of(end.error), _now())
        return bool(ended)

    async def _write(self, phase: RunPhase) -> RunStatus:
        self._forget_news()
        status = self._progress.status(phase=phase, now=_now())
        await self._journal.write(status)
        return status

    async def _conclude(self) -> RunStatus:
        if not self._progress.failed:
            try:
                check_size(self._progress.final_context(), self._workshop.context_limit)
            except ContextError as error:
                self._progress.failed_as_a_whole(f"the leaves of workflow {self._workflow.name!r} together: {error}")
        return await self._write(RunPhase.FAILED if self._progress.failed else RunPhase.COMPLETED)

    async def _stopped(self, reason: StopReason) -> RunStatus:
        await self._abandon()
        self._settle_ended()
        if self._progress.finished:
            return await self._conclude()
        if reason is StopReason.INTERRUPTED:
            self._progress.interrupted()
            return await self._write(RunPhase.PENDING)
        if reason is StopReason.DEADLINE:
            self._progress.cancelled(_now(), _TOO_LONG)
            return await self._write(RunPhase.FAILED)
        self._progress.cancelled(_now(), "cancelled")
        return await self._write(RunPhase.CANCELLED)

    async def _abandon(self) -> None:
        """Cancel what runs. A sync function cannot be stopped in its thread: its late result is ignored."""
        for _, handle in self._prepared:
            if handle is not None:
                handle.close()
        self._prepared.clear()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    # --- waking up

    async def _sleep(self) -> None:
        """Return when a task ended, news are due or a stop was requested."""
        self._sleeper = self._loop.create_future()
        try:
            await self._sleeper
        finally:
            self._sleeper = None

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def _news(self) -> None:
        """Something is worth recording soon, though nothing waits for it."""
        if self._news_timer is None:
            self._news_timer = self._loop.call_later(_GATHER, self._news_have_waited)

    def _news_have_waited(self) -> None:
        self._news_due = True
        self._wake()

    def _forget_news(self) -> None:
        self._news_due = False
        if self._news_timer is not None:
            self._news_timer.cancel()
            self._news_timer = None

    # --- one task

    async def _perform(self, definition: TaskDefinition, handle: TaskHandle | None) -> None:
        """Try the task until it completes or its retry policy gives up, and report how it ended."""
        try:
            ended = await self._tries(definition, handle)
        except Exception as error:  # a fault of the engine, not of the task
            log.exception("task %r: internal error", definition.id)
            ended = Ended(error=CloacaError(f"internal error: {describe(error)}"))
        self._ended.append((definition.id, ended))
        self._wake()

    async def _tries(self, definition: TaskDefinition, handle: TaskHandle | None) -> Ended:
        """The last try's end: where it is no error, its value is the task's context after it, as a dict."""
        while True:
            if handle is None:
                await self._workshop.slots.acquire()
                handle = self._started(definition)
                self._news()
            try:
                context = Context._holding(self._progress.input_of(definition.id))
                ended = await self._try(definition, context, handle)
                delay = self._delay(definition, ended)
                if delay is None or ended.error is None:
                    await self._call_back(definition, ended, context)
                    return ended
            finally:
                handle.close()
            self._progress.retrying(definition.id, f"retrying in {delay:.1f} s: {describe(ended.error)}")
            self._news()
            await asyncio.sleep(delay)
            handle = None

    def _started(self, definition: TaskDefinition) -> TaskHandle:
        """A try begins, in a slot that was taken for it; closing the handle gives the slot back."""
        self._progress.started(definition.id, _now())
        return TaskHandle(definition.id, self._workshop.slots, self._loop)

    async def _try(self, definition: TaskDefinition, context: Context, handle: TaskHandle) -> Ended:
        ended = await call(
            definition.function,
            (context, handle) if definition.takes_handle else (context,),
            is_async=definition.is_async,
            pool=self._workshop.pool,
            timeout=definition.timeout_seconds or self._workshop.task_timeout,
        )
        if ended.error is not None:
            return ended
        try:
            return Ended(checked_result(ended.value, context, self._workshop.context_limit))
        except CloacaError as error:
            return Ended(error=error)

    def _delay(self, definition: TaskDefinition, ended: Ended) -> float | None:
        """Seconds until the next try; None: that was the last one."""
        if ended.error is None:
            return None
        failures = self._progress.attempts_of(definition.id)
        return retry_delay(definition.retry, failures, ended.error, random.random())

    async def _call_back(self, definition: TaskDefinition, ended: Ended, context: Context) -> None:
        """Tell the task's own callback. What it raises is logged and fails nothing."""
        if ended.error is None and definition.on_success is not None:
            await self._tell(definition.on_success, definition.id, Context(ended.value))
        elif ended.error is not None and definition.on_failure is not None:
            await self._tell(definition.on_failure, definition.id, describe(ended.error), context)

    async def _tell(self, callback: Callable[..., Any], task: str, *news: Any) -> None:
        timeout = self._workshop.task_timeout
        answer = await call(callback, (task, *news), is_async=False, pool=self._workshop.pool, timeout=timeout)
        if answer.error is not None:
            name = getattr(callback, "__name__", repr(callback))
            log.warning("task %r: its callback %s raised %s", task, name, describe(answer.error))


def _closed(handle: TaskHandle, _: object) -> None:
    handle.close()


def _now() -> datetime:
    return datetime.now(timezone.utc)
