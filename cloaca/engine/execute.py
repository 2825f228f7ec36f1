"""Drive one run: start what is ready, in parallel, record what finished, before anything that builds on it starts.

Whichever thread has news of a run drives it on, one at a time, and then calls the next function itself: a run of short
tasks stays in one thread from its first record to its last.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from enum import Enum
from typing import Any, NamedTuple, Protocol

from cloaca.authoring.context import CONTEXT_LIMIT, Context
from cloaca.authoring.task import TaskDefinition
from cloaca.authoring.value import Value
from cloaca.authoring.workflow import Workflow
from cloaca.engine.attempt import Call, Ended, check_size, checked_result, ignored
from cloaca.engine.crew import Crew
from cloaca.engine.handle import TaskHandle
from cloaca.engine.log import Log
from cloaca.engine.plan import plan_of
from cloaca.engine.progress import Progress
from cloaca.engine.record import Record
from cloaca.engine.retry import retry_delay
from cloaca.engine.slots import Slots
from cloaca.engine.timers import Timer, Timers
from cloaca.errors import ContextError
from cloaca.failure import Failure, failure_of, function_name, one_line
from cloaca.resources.phases import RunPhase
from cloaca.resources.recorded import RecordedStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloaca.engine.loop import Loop

log = Log("cloaca.engine")

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
    """Asks a run to stop; the first reason given holds. Thread-safe."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None  # None: go on
        self._listener: Callable[[], None] | None = None

    def request(self, reason: StopReason) -> None:
        """Stop as soon as possible."""
        if self.reason is None:
            self.reason = reason
            if self._listener is not None:
                self._listener()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call ``listener`` when a stop is requested; None: nobody."""
        self._listener = listener


class Journal(Protocol):
    """Where a run's status is recorded."""

    @property
    def waits(self) -> bool:
        """Whether a write waits for the world, as for a server: others may use its place among the threads."""
        ...

    def write(self, record: Record) -> None:
        """Return when ``record`` is durable. Raises when this process must not write it any more.

        Called in threads of the crew, by one at a time.
        """
        ...


class Workshop(Value):
    """What the tasks of one process share, whatever run they belong to."""

    crew: Crew  # drives runs, and calls sync functions
    loop: Loop  # where async functions run
    timers: Timers
    slots: Slots  # how many tasks run at once
    task_timeout: float | None = None  # seconds; None: no limit but a task's own
    context_limit: int = CONTEXT_LIMIT
    kept_limit: int | None = None  # bytes of JSON of all contexts that a run keeps at once; None: no limit


async def execute(
    workflow: Workflow,
    context: Mapping[str, Any],
    recorded: RecordedStatus,
    journal: Journal,
    workshop: Workshop,
    stop: Stop,
) -> RecordedStatus:
    """Run ``workflow`` from what is ``recorded`` to its end; returns the status that was written last.

    A failing task fails the run and skips its dependents; it never raises. What raises is the journal. Awaited on the
    workshop's loop; cancelled, it lets go of what runs, and records nothing more.
    """
    from asyncio import CancelledError, Event

    over = Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            workshop.loop.call_soon_threadsafe(over.set)

    execution = Execution(workflow, context, recorded, journal, workshop, stop, wake)
    execution.begin()
    try:
        await over.wait()
    except CancelledError:
        execution.abandon()
        await over.wait()
        raise
    return execution.result().status


class _Try(NamedTuple):
    """A try of a task that is under way: its function is called, and then perhaps the callback that hears of it."""

    definition: TaskDefinition
    handle: TaskHandle
    context: Context
    ended: Ended | None = None  # None: the function is called; else how that ended, which the callback is told


class Execution:
    """One run in this process. Thread-safe: what happens arrives as events, which one thread at a time works through.

    ``over`` is called once it has ended, in whatever thread; then ``result`` says how.
    """

    def __init__(
        self,
        workflow: Workflow,
        context: Mapping[str, Any],
        recorded: RecordedStatus,
        journal: Journal,
        workshop: Workshop,
        stop: Stop,
        over: Callable[[], None],
    ) -> None:
        self._workflow = workflow
        self._journal = journal
        self._workshop = workshop
        self._stop = stop
        self._tell_over = over
        self._progress = Progress(plan_of(workflow), context, recorded)
        self._events: deque[Callable[[], None]] = deque()
        self._driving = threading.Lock()  # held by the thread that works through the events; what follows is its alone
        self._driver: int | None = None
        self._now = datetime.now(timezone.utc)  # when it began to work through them
        self._tries: dict[Call, _Try] = {}
        self._queued: dict[str, Callable[[], None]] = {}  # tasks that wait for a slot, with what they are granted by
        self._retries: dict[str, Timer] = {}
        self._calls: list[Call] = []  # of sync functions, to be made now
        self._news = False  # something is worth recording soon, though nothing waits for it
        self._news_due = False  # and has waited long enough
        self._news_timer: Timer | None = None
        self._over = False
        self._record: Record | None = None
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Start it. Raises RuntimeError where there is no thread for it."""
        self._workshop.crew.submit(self.run)

    def run(self) -> None:
        """Start it in this thread, one of the crew's, and go on as far as nothing is to be waited for."""
        self._stop.listen(functools.partial(self._post, _nothing))
        self._events.append(_nothing)
        self._go()

    def abandon(self) -> None:
        """Let go of what runs, and record nothing more."""
        from asyncio import CancelledError

        self._post(functools.partial(self._break, CancelledError()))

    @property
    def waits_for_slot(self) -> bool:
        """Whether a task is ready and there is no slot for it."""
        return bool(self._queued)

    def result(self) -> Record:
        """What was written last. Raises what the journal raised."""
        if self._error is not None:
            raise self._error
        if self._record is None:
            raise RuntimeError("the run is not over")
        return self._record

    # --- driving

    def _post(self, event: Callable[[], None]) -> None:
        """Let some thread work through ``event``."""
        self._events.append(event)
        if self._driver != threading.get_ident():
            self._workshop.crew.submit(self._go)

    def _go(self) -> None:
        """Work through what happened, and make the calls that come of it, one of them in this thread."""
        crew = self._workshop.crew
        while calls := self._drive():
            mine = calls.pop()
            for call in calls:
                crew.submit(functools.partial(self._make, call))
            mine.make(crew)

    def _make(self, call: Call) -> None:
        call.make(self._workshop.crew)
        self._go()

    def _drive(self) -> list[Call]:
        """Work through the events unless another thread does; returns the calls that are to be made."""
        calls: list[Call] = []
        while self._events and self._driving.acquire(blocking=False):
            self._driver = threading.get_ident()
            try:
                self._advance()
            except BaseException as error:  # noqa: BLE001  # the journal's; it belongs to whoever waits for the run
                self._break(error)
            finally:
                calls += self._calls
                self._calls = []
                self._driver = None
                self._driving.release()
        return calls

    def _advance(self) -> None:
        self._now = datetime.now(timezone.utc)
        while self._events:
            self._events.popleft()()
        if self._over:
            return
        if self._stop.reason is not None:
            self._stopped(self._stop.reason)
        elif self._progress.finished:
            self._conclude()
        else:
            ready = self._progress.take_ready()
            if ready or self._news_due:
                self._record_and_start(ready)
            elif self._news and self._news_timer is None:
                self._news_timer = self._workshop.timers.after(_GATHER, functools.partial(self._post, self._news_wait))

    def _record_and_start(self, ready: list[str]) -> None:
        """What finds a slot free is recorded as running, and then started; the rest waits for one."""
        tasks, slots = self._workflow.tasks, self._workshop.slots
        prepared = [(tasks[task], self._handle(task) if slots.take() else None) for task in ready]
        try:
            self._write(RunPhase.RUNNING)
        except BaseException:
            for _, handle in prepared:
                if handle is not None:
                    handle.close()
            raise
        for definition, handle in prepared:
            self._start(definition, handle)

    def _news_wait(self) -> None:
        self._news_due = True

    def _write(self, phase: RunPhase) -> Record:
        self._forget_news()
        record = self._progress.record(phase=phase, now=self._now)
        if not self._journal.waits:
            self._journal.write(record)
            return record
        self._workshop.crew.leave()
        try:
            self._journal.write(record)
        finally:
            self._workshop.crew.back()
        return record

    def _forget_news(self) -> None:
        self._news = self._news_due = False
        if self._news_timer is not None:
            self._news_timer.cancel()
            self._news_timer = None

    # --- the end

    def _conclude(self) -> None:
        if not self._progress.failed and len(self._progress.leaves) > 1:
            try:
                check_size(self._progress.final_context().data, self._workshop.context_limit)
            except ContextError as error:
                self._progress.failed_as_a_whole(f"the leaves of workflow {self._workflow.name!r} together: {error}")
        self._end(RunPhase.FAILED if self._progress.failed else RunPhase.COMPLETED)

    def _stopped(self, reason: StopReason) -> None:
        self._let_go()
        if self._progress.finished:
            self._conclude()
        elif reason is StopReason.INTERRUPTED:
            self._progress.interrupted()
            self._end(RunPhase.PENDING)
        elif reason is StopReason.DEADLINE:
            self._progress.cancelled(self._now, _TOO_LONG)
            self._end(RunPhase.FAILED)
        else:
            self._progress.cancelled(self._now, "cancelled")
            self._end(RunPhase.CANCELLED)

    def _end(self, phase: RunPhase) -> None:
        self._record = self._write(phase)
        self._close()

    def _break(self, error: BaseException) -> None:
        """End it here, unrecorded."""
        if self._over:
            return
        self._let_go()
        self._forget_news()
        self._error = error
        self._close()

    def _close(self) -> None:
        self._over = True
        self._stop.listen(None)  # who asks for stops, and who waits for the end, may know this run: it forgets both
        tell, self._tell_over = self._tell_over, _nothing
        tell()

    def _let_go(self) -> None:
        """Give up what runs. A sync function cannot be stopped in its thread: its late result is ignored."""
        tries, self._tries = self._tries, {}
        for call, attempt in tries.items():
            call.drop()
            attempt.handle.close(given_up=True)
        queued, self._queued = self._queued, {}
        for granted in queued.values():
            if not self._workshop.slots.withdraw(granted):
                self._workshop.slots.give()
        for timer in self._retries.values():
            timer.cancel()
        self._retries.clear()
        self._calls.clear()

    # --- one task

    def _handle(self, task: str) -> TaskHandle:
        """A try of ``task`` begins in a slot that was taken; closing the handle gives it back."""
        self._progress.started(task, self._now)
        return TaskHandle(task, self._workshop.slots, self._workshop.loop)

    def _start(self, definition: TaskDefinition, handle: TaskHandle | None) -> None:
        """Start a try, now or once there is a slot for it."""
        task = definition.id
        if handle is None:
            granted = functools.partial(self._post, functools.partial(self._granted, definition))
            if not self._workshop.slots.take(granted):
                self._queued[task] = granted
                return
            handle = self._handle(task)
            self._news = True
        context = Context._holding(self._progress.input_of(task))
        arguments = (context, handle) if definition.takes_handle else (context,)
        timeout = definition.timeout_seconds or self._workshop.task_timeout
        keep = functools.partial(checked_result, given=context, limit=self._workshop.context_limit)
        attempt = _Try(definition, handle, context)
        self._call(attempt, definition.function, arguments, keep, timeout, is_async=definition.is_async)

    def _call(
        self,
        attempt: _Try,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keep: Callable[[Any], Any],
        timeout: float | None,
        *,
        is_async: bool,
    ) -> None:
        call = Call(
            function,
            arguments,
            is_async=is_async,
            loop=self._workshop.loop,
            variables=self._workshop.crew.fresh_context(),
            tell=self._told,
            over=self._wake,
            keep=keep,
        )
        call.handle = attempt.handle
        self._tries[call] = attempt
        if timeout is not None:
            call.limit(timeout, self._workshop.timers)
        if is_async:
            call.start()
        else:
            self._calls.append(call)

    def _told(self, call: Call, ended: Ended) -> None:
        """A call has ended; in whatever thread."""
        self._events.append(functools.partial(self._heard, call, ended))

    def _wake(self) -> None:
        self._workshop.crew.submit(self._go)

    def _heard(self, call: Call, ended: Ended) -> None:
        attempt = self._tries.pop(call, None)
        if attempt is None:
            return  # the run let go of it
        if attempt.ended is None:
            self._tried(attempt, ended)
        else:
            self._called_back(attempt, attempt.ended, ended)

    def _granted(self, definition: TaskDefinition) -> None:
        if self._queued.pop(definition.id, None) is None:
            return  # the run let go of it, and of its slot
        handle = self._handle(definition.id)
        self._news = True
        self._start(definition, handle)

    def _tried(self, attempt: _Try, ended: Ended) -> None:
        """The function returned, raised or took too long."""
        ended = self._fitting(attempt, ended)
        definition, failure = attempt.definition, ended.failure
        if failure is None:
            if definition.on_success is None:
                self._settle(attempt, ended)
            else:
                self._call_back(attempt, ended, definition.on_success, Context(ended.value.data))
            return
        delay = self._delay(definition, failure)
        if delay is not None:
            self._try_again(attempt, ended, failure, delay)
        elif definition.on_failure is None:
            self._settle(attempt, ended)
        else:
            self._call_back(attempt, ended, definition.on_failure, failure.message, attempt.context)

    def _fitting(self, attempt: _Try, ended: Ended) -> Ended:
        """``ended``; or a failure, if the contexts that the run must keep would be too much for one object."""
        limit, task = self._workshop.kept_limit, attempt.definition.id
        if ended.failure is not None or limit is None:
            return ended
        size = self._progress.kept_bytes(task, ended.value)
        if size <= limit:
            return ended
        said = (
            f"the contexts that the run keeps for its unfinished tasks, and its result, would be {size:,} bytes, "
            f"over the limit of {limit:,}: store the data elsewhere and keep references to it in the contexts"
        )
        return Ended(failure=failure_of(ContextError(said)))

    def _delay(self, definition: TaskDefinition, failure: Failure) -> float | None:
        """Seconds until the next try; None: that was the last one."""
        failures = self._progress.attempts_of(definition.id)
        return retry_delay(definition.retry, failures, failure, _chance())

    def _try_again(self, attempt: _Try, ended: Ended, failure: Failure, delay: float) -> None:
        task = attempt.definition.id
        attempt.handle.close(given_up=ended.timed_out)
        self._progress.retrying(task, f"retrying in {delay:.1f} s: {failure.message}")
        self._news = True
        again = functools.partial(self._post, functools.partial(self._retry, attempt.definition))
        self._retries[task] = self._workshop.timers.after(delay, again)

    def _retry(self, definition: TaskDefinition) -> None:
        if self._retries.pop(definition.id, None) is not None:
            self._start(definition, None)

    def _call_back(self, attempt: _Try, ended: Ended, callback: Callable[..., Any], *news: Any) -> None:
        """Tell the task's own callback, within the try's slot."""
        arguments = (attempt.definition.id, *news)
        attempt = attempt._replace(ended=ended)
        self._call(attempt, callback, arguments, ignored, self._workshop.task_timeout, is_async=False)

    def _called_back(self, attempt: _Try, ended: Ended, answer: Ended) -> None:
        if answer.failure is not None:  # which fails nothing
            definition = attempt.definition
            callback = definition.on_success if ended.failure is None else definition.on_failure
            said = one_line(answer.failure.message)
            log.warning("task %r: its callback %s raised %s", definition.id, function_name(callback), said)
        self._settle(attempt, ended)

    def _settle(self, attempt: _Try, ended: Ended) -> None:
        """The task has ended."""
        task = attempt.definition.id
        attempt.handle.close(given_up=ended.timed_out)
        if ended.failure is None:
            self._progress.completed(task, ended.value, self._now)
        else:
            self._progress.gave_up(task, ended.failure.message, ended.failure.traceback, self._now)
        self._news = True


def _chance() -> float:
    from random import random  # for retries, which most runs have none of

    return random()


def _nothing() -> None:
    """Only let the run be looked at."""
