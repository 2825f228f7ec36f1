"""Library mode: DefaultRunner executes a program's own workflows through the same store and engine as everywhere."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import os
import threading
import weakref
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, TypeVar

from cloaca.authoring.context import Context
from cloaca.authoring.registry import Registry, active_registry
from cloaca.authoring.workflow import Workflow
from cloaca.engine.attempt import check_size
from cloaca.engine.config import DefaultRunnerConfig
from cloaca.engine.crew import Crew
from cloaca.engine.execute import Execution, Stop, StopReason, Workshop, execute
from cloaca.engine.handle import current_handle
from cloaca.engine.journal import StoreJournal
from cloaca.engine.loop import run_on
from cloaca.engine.slots import Slots
from cloaca.engine.timers import Timer, Timers
from cloaca.errors import (
    AlreadyExists,
    CloacaError,
    DefinitionError,
    RunLost,
    RunnerClosed,
    StoreUnavailable,
    WorkflowNotFound,
)
from cloaca.library.cron import CronSchedules
from cloaca.library.journal import NewRunJournal
from cloaca.library.nesting import LoopThreads, wait_nested
from cloaca.library.presence import BEAT, Presence
from cloaca.library.recovery import recover
from cloaca.library.result import WorkflowResult
from cloaca.library.schedules import ScheduleMethods
from cloaca.library.triggers import TriggerSchedules
from cloaca.library.waiting import Waiting, warn_if_starving
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.names import manual_run_name, run_labels
from cloaca.resources.phases import RunPhase
from cloaca.resources.recorded import RecordedRun, RecordedStatus
from cloaca.resources.run import RunSpec, RunStatus, WorkflowRun
from cloaca.store import Store, open_store
from cloaca.store.blocking import blocking, recorded

T = TypeVar("T")

log = logging.getLogger("cloaca.library")

_PATIENCE = 1.0  # seconds


class DefaultRunner(ScheduleMethods):
    """Executes the workflows that this program registered. Thread-safe; close it with ``shutdown()`` or ``with``.

    ``database_url``: ``":memory:"``, ``"sqlite:///app.db"``, a path or ``"postgresql://user@host/database"``.

    >>> import cloaca
    >>> with cloaca.WorkflowBuilder("greet"):
    ...     @cloaca.task()
    ...     def hello(context):
    ...         context.set("said", "hello")
    >>> with DefaultRunner(":memory:") as runner:
    ...     result = runner.execute("greet", cloaca.Context())
    >>> result.status, result.final_context["said"]
    ('Completed', 'hello')
    """

    def __init__(self, database_url: str) -> None:
        self._start(database_url, DefaultRunnerConfig())

    @classmethod
    def with_config(cls, database_url: str, config: DefaultRunnerConfig) -> DefaultRunner:
        """A runner with other settings than the default ones; later changes of ``config`` do not reach it.

        >>> with DefaultRunner.with_config(":memory:", DefaultRunnerConfig(max_concurrent_tasks=8)) as runner:
        ...     runner
        DefaultRunner(open)
        """
        runner = cls.__new__(cls)
        runner._start(database_url, replace(config))
        return runner

    @classmethod
    def with_schema(cls, database_url: str, schema: str) -> DefaultRunner:
        """A runner whose runs live in one PostgreSQL schema, one for each tenant; made if it is not there.

        Raises DefinitionError (a ValueError) for a name that no schema may have, before anything is connected to, and
        StoreUnavailable where the database cannot be used.

        >>> DefaultRunner.with_schema("postgresql://me@localhost/workflows", "acme-corp")
        Traceback (most recent call last):
        cloaca.errors.DefinitionError: Schema name 'acme-corp' must contain only alphanumeric characters and underscores
        """
        if not isinstance(schema, str) or not schema.strip():
            raise DefinitionError("Schema name cannot be empty")
        if not (schema.isascii() and schema.replace("_", "").isalnum()):
            raise DefinitionError(f"Schema name {schema!r} must contain only alphanumeric characters and underscores")
        from cloaca.store.sql.url import with_schema  # here, so that importing cloaca stays light

        try:
            return cls(with_schema(database_url, schema))
        except StoreUnavailable as error:
            raise StoreUnavailable(f"Failed to create DefaultRunner with schema {schema!r}: {error}") from error

    def _start(self, database_url: str, config: DefaultRunnerConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._closed = False
        self._forked_from: int | None = None  # the process that made this runner, in a forked child of it
        self._pid = os.getpid()
        self._active: set[concurrent.futures.Future[Any]] = set()
        self._executing: set[Waiting] = set()
        self._patterns: dict[str, WorkflowRun] = {}  # workflow → what all its runs have in common
        self._crew = Crew()
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(LoopThreads())
        self._thread = threading.Thread(target=run_on, args=(self._loop,), name="cloaca-runner", daemon=True)
        self._thread.start()
        try:
            self._begin(self._open(database_url)).result()
        except BaseException:
            self._closed = True
            self._stop_loop()
            raise
        _RUNNERS.add(self)

    async def _open(self, database_url: str) -> None:
        """Open the store, say that this runner lives, and begin what goes on in the background."""
        from cloaca.store.sql.url import with_pool_size  # here, so that importing cloaca stays light

        config = self._config
        self._store: Store = await open_store(with_pool_size(database_url, config.db_pool_size))
        self._workshop = Workshop(
            crew=self._crew,
            loop=self._loop,
            timers=Timers(self._loop),
            slots=Slots(config.max_concurrent_tasks),
            task_timeout=config.task_timeout_seconds,
        )
        self._blocking = blocking(self._store, self._loop)
        self._registry: Registry = active_registry()
        self._presence = Presence(self._store)
        self._begun = RecordedStatus(attempt=1, pod_name=self._presence.name)
        self._kept: set[asyncio.Task[Any]] = set()  # what shutdown() waits for
        self._cron = CronSchedules(self._store, config, self._registry.workflows, self._submit)
        self._triggers = TriggerSchedules(
            self._store,
            self._registry,
            self._presence,
            self._crew,
            self._submit,
            self._keep,
            recovers=config.enable_recovery,
        )
        try:
            await self._presence.announce()
        except BaseException:
            await self._store.close()
            raise
        self._living = self._loop.create_task(self._keep_living())
        self._firing = self._loop.create_task(self._cron.keep_firing()) if config.enable_cron_scheduling else None
        self._triggers.adopt()
        self._registry.listeners.append(self._adopt)

    def _adopt(self) -> None:
        with self._lock:
            if not self._closed:
                self._loop.call_soon_threadsafe(self._triggers.adopt)

    def execute(self, workflow_name: str, context: Context | dict[str, Any] | None = None) -> WorkflowResult:
        """Run a workflow to its end. A failing task gives a result whose status is "Failed"; it does not raise.

        A task may call it too: it gives its concurrency slot to others while it waits.

        Whatever is raised is a ValueError: WorkflowNotFound (a KeyError too) for a name that no workflow is registered
        under, ContextError for a context over the limit, RunnerClosed after ``shutdown()`` and in a forked child,
        StoreUnavailable where the run cannot be recorded, and RunLost where another process resumed it, because this
        one was stopped for long. A task that took too long meanwhile gets TaskTimeout. Ctrl-C ends the call at once
        and cancels the run.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("greet"):
        ...     hello = cloaca.task(id="hello")(lambda context: context.set("said", "hello"))
        >>> with DefaultRunner(":memory:") as runner:
        ...     runner.execute("greet", {"to": "you"}).final_context
        Context({'to': 'you', 'said': 'hello'})
        """
        self._refuse_own_thread("execute")
        registered = active_registry().workflows
        workflow = registered.get(workflow_name) if isinstance(workflow_name, str) else None
        if workflow is None:
            known = ", ".join(sorted(registered)) or "none"
            raise WorkflowNotFound(
                f"no workflow is registered as {workflow_name!r}: name one that is, or define it first; "
                f"registered: {known}"
            )
        given = Context(context).to_dict()
        check_size(given)
        record, uid = self._wait_for(workflow, given).result()
        completed = record.phase is RunPhase.COMPLETED
        return WorkflowResult(
            status="Completed" if completed else "Failed",
            final_context=Context._holding(given if record.context is None else record.context.data),
            start_time=record.started_at,
            end_time=record.finished_at or record.started_at,
            error_message=None if completed else record.message,
            workflow_name=workflow.name,
            execution_id=uid,
        )

    def _wait_for(self, workflow: Workflow, context: dict[str, Any]) -> Waiting:
        """Take a new run to its end, while this thread waits: everything is done by the crew.

        A thread of a task gives the task's place to others meanwhile.
        """
        waiting = Waiting()
        handle = current_handle.get()
        if handle is None:
            self._begin_and_wait(workflow, context, waiting)
        else:
            cancel = functools.partial(waiting.stop.request, StopReason.CANCELLED)
            wait_nested(handle, functools.partial(self._begin_and_wait, workflow, context, waiting), cancel)
        return waiting

    def _begin_and_wait(self, workflow: Workflow, context: dict[str, Any], waiting: Waiting) -> None:
        with self._lock:
            self._refuse_if_closed()
            self._executing.add(waiting)
        try:
            try:
                drive = functools.partial(self._execute, workflow, context, waiting)
                self._crew.submit(drive, awaited=current_handle.get() is not None)
            except BaseException:
                self._executing.discard(waiting)
                raise
            if threading.current_thread() is not threading.main_thread() and current_handle.get() is None:
                warn_if_starving(waiting, workflow.name, self._config.max_concurrent_tasks)
            waiting.wait()
        except BaseException:  # whatever a signal raised here while the run goes on
            waiting.stop.request(StopReason.CANCELLED)
            raise

    def _execute(self, workflow: Workflow, context: dict[str, Any], waiting: Waiting) -> None:
        """In a thread of the crew: make the run that another thread waits for, and drive it."""
        try:
            run = self._new_run(workflow.name, context)
            journal = NewRunJournal(self._blocking, run)
            timer = self._time_limit(None, waiting.stop)
            over = functools.partial(self._ended, waiting, timer)
            execution = Execution(workflow, context, self._begun, journal, self._workshop, waiting.stop, over)
            waiting.begun(execution, journal)
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits
            waiting.error = error
            self._ended(waiting, None)
        else:
            execution.run()

    def _ended(self, waiting: Waiting, timer: Timer | None) -> None:
        if timer is not None:
            timer.cancel()
        self._executing.discard(waiting)
        waiting.tell()

    def _new_run(self, workflow: str, context: dict[str, Any]) -> WorkflowRun:
        """A run that is not recorded yet: what is checked once for all runs of the workflow, with what is its own."""
        like = self._patterns.get(workflow)
        if like is None:
            like = self._patterns[workflow] = WorkflowRun(
                metadata=ObjectMeta(labels=run_labels(workflow=workflow)),
                spec=RunSpec(workflow=workflow),
                status=RunStatus(attempt=1, pod_name=self._presence.name),
            )
        name = manual_run_name(workflow, os.urandom(6).hex())
        metadata = like.metadata.model_copy(update={"name": name})
        spec = like.spec.model_copy(update={"context": context})
        return like.model_copy(update={"metadata": metadata, "spec": spec})

    async def _drive(self, workflow: Workflow, run: RecordedRun) -> None:
        """Take a run to its end, while others of the loop go on."""
        journal, stop = StoreJournal(self._blocking, run), Stop()
        timer = self._time_limit(run.status.started_at, stop)
        try:
            await execute(workflow, run.context, run.status, journal, self._workshop, stop)
        finally:
            if timer is not None:
                timer.cancel()

    def _time_limit(self, started_at: datetime | None, stop: Stop) -> Timer | None:
        """Stop the run when its time is over, which counts from its first start."""
        if self._config.pipeline_timeout_seconds is None:
            return None
        left = float(self._config.pipeline_timeout_seconds)
        if started_at is not None:
            left -= (datetime.now(timezone.utc) - started_at).total_seconds()
        return self._workshop.timers.after(max(0.0, left), functools.partial(stop.request, StopReason.DEADLINE))

    # --- in the background

    async def _submit(self, workflow: Workflow, run: WorkflowRun) -> bool:
        """Make ``run`` and execute it; False: there is one of that name. Returns when it is durable."""
        made = run.model_copy(update={"status": RunStatus(attempt=1, pod_name=self._presence.name)})

        async def create() -> bool:
            try:
                created = await self._store.create(made)
            except AlreadyExists:
                return False
            self._resume(workflow, created)
            return True

        return await self._keep(create())

    def _resume(self, workflow: Workflow, run: WorkflowRun) -> None:
        """Execute a run that is this runner's already."""
        self._kept_task(self._drive_unseen(workflow, run))

    async def _drive_unseen(self, workflow: Workflow, run: WorkflowRun) -> None:
        try:
            async with self._triggers.turn(run):
                await self._drive(workflow, recorded(run))
        except RunLost as lost:
            log.warning("%s", lost)
        except CloacaError as error:
            log.warning("run %s could not be recorded: %s", run.name, error)

    async def _keep(self, work: Coroutine[Any, Any, T]) -> T:
        """``work``, which goes on when whoever waits for it is cancelled; shutdown() waits for it."""
        return await asyncio.shield(self._kept_task(work))

    def _kept_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    async def _keep_living(self) -> None:
        """Give signs of life, and take over what dead runners left."""
        cron_due = self._loop.time()
        told: set[str] = set()  # runs whose workflow this program has not
        while True:
            try:
                if self._config.enable_recovery:
                    cron_too = self._loop.time() >= cron_due
                    await recover(
                        self._store,
                        self._presence,
                        self._config,
                        self._registry.workflows,
                        self._resume,
                        self._triggers.may_resume,
                        self._is_open,
                        told,
                        cron_too=cron_too,
                    )
                    if cron_too:
                        cron_due = self._loop.time() + self._config.cron_recovery_interval_seconds
                await asyncio.sleep(BEAT)
                await self._presence.announce()
            except CloacaError as error:
                log.warning("the runner's sign of life could not be given, and will be again: %s", error)
                await asyncio.sleep(1.0)

    def _is_open(self) -> bool:
        return not self._closed

    async def _wind_down(self) -> None:
        """Fire and poll no more; wait for the runs under way; take the sign of life back."""
        if self._firing is not None:
            self._firing.cancel()
        await self._triggers.stop()
        while self._kept:
            await asyncio.wait(set(self._kept))
        self._living.cancel()
        try:
            await self._presence.leave()
        except CloacaError as error:
            log.warning("the runner's sign of life stays until it is found dead: %s", error)

    def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        if self._forked_from is None and threading.get_ident() == self._thread.ident:
            work.close()
            self._refuse_own_thread("this method")
        return self._begin(work).result()

    # --- the end

    def shutdown(self) -> None:
        """Take no more work, wait for what is under way, let go of the database. Idempotent.

        >>> runner = DefaultRunner(":memory:")
        >>> runner.shutdown()
        >>> runner
        DefaultRunner(shut down)
        """
        self._refuse_own_thread("shutdown")
        with self._lock:
            if self._closed:
                return
            self._closed = True
            active, executing = list(self._active), list(self._executing)
        if self._adopt in self._registry.listeners:
            self._registry.listeners.remove(self._adopt)
        winding_down = asyncio.run_coroutine_threadsafe(self._wind_down(), self._loop)
        concurrent.futures.wait([*active, winding_down])
        for waiting in executing:
            waiting.wait()
        try:
            asyncio.run_coroutine_threadsafe(self._store.close(), self._loop).result()
        finally:
            self._stop_loop()

    def _stop_loop(self) -> None:
        asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._crew.shutdown()

    def _begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start ``work`` on the runner's loop. Raises RunnerClosed after ``shutdown()``."""
        with self._lock:
            try:
                self._refuse_if_closed()
            except RunnerClosed:
                work.close()
                raise
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._active.add(future)
        future.add_done_callback(self._active.discard)
        return future

    def _forked(self) -> None:
        """In a forked child: nothing of this runner is here but its memory, of which the parent's threads may have
        left locks held and lists half changed."""
        self._forked_from, self._closed = self._pid, True
        self._lock = threading.Lock()
        if self._adopt in self._registry.listeners:
            self._registry.listeners.remove(self._adopt)

    def _refuse_if_closed(self) -> None:
        if self._forked_from is not None:
            raise RunnerClosed(
                f"this runner belongs to process {self._forked_from}, of which this one is a fork: its threads and "
                "connections stayed there. Make a DefaultRunner in this process, after the fork (gunicorn: in "
                "post_fork; Celery: at worker_process_init; multiprocessing: in the initializer)"
            )
        if self._closed:
            raise RunnerClosed("the runner was shut down: make a new DefaultRunner")

    def _refuse_own_thread(self, what: str) -> None:
        if self._forked_from is None and threading.get_ident() == self._thread.ident:
            raise RunnerClosed(
                f"{what}() would wait for itself: in an async task call `await asyncio.to_thread(runner.{what}, …)`"
            )

    def __enter__(self) -> DefaultRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        if self._forked_from is not None:
            return f"DefaultRunner(of process {self._forked_from})"
        return f"DefaultRunner({'shut down' if self._closed else 'open'})"


_RUNNERS: weakref.WeakSet[DefaultRunner] = weakref.WeakSet()


def _in_child() -> None:
    for runner in list(_RUNNERS):
        runner._forked()
    _RUNNERS.clear()


os.register_at_fork(after_in_child=_in_child)


async def _end_tasks() -> None:
    """Cancel what still runs on this loop: async functions that were given up. One that refuses is left behind."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=_PATIENCE)
