"""Library mode: DefaultRunner executes a program's own workflows through the same store and engine as everywhere."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any, TypeVar

from cloaca.authoring.context import Context
from cloaca.authoring.registry import active_registry
from cloaca.authoring.workflow import Workflow
from cloaca.engine.attempt import check_size
from cloaca.engine.config import DefaultRunnerConfig
from cloaca.engine.execute import Stop, StopReason, Workshop, execute
from cloaca.engine.journal import StoreJournal
from cloaca.engine.threads import DaemonThreads
from cloaca.errors import DefinitionError, RunnerClosed, StoreUnavailable, WorkflowNotFound
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.names import manual_run_name, run_labels
from cloaca.resources.run import RunPhase, RunSpec, RunStatus, WorkflowRun
from cloaca.store import Store, open_store

T = TypeVar("T")

_MOST_THREADS = 1_000  # slots limit how many tasks work; a thread whose task gave up its slot waits beside them
_PATIENCE = 1.0  # seconds


@dataclass(frozen=True, kw_only=True)
class WorkflowResult:
    """How an execution ended."""

    status: str  # "Completed" or "Failed"
    final_context: Context
    start_time: datetime
    end_time: datetime
    error_message: str | None  # None: it completed
    workflow_name: str
    execution_id: str

    @property
    def duration(self) -> timedelta:
        """From start to end."""
        return self.end_time - self.start_time


class DefaultRunner:
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
        """A runner with other settings than the default ones; later changes of ``config`` do not reach it."""
        runner = cls.__new__(cls)
        runner._start(database_url, replace(config))
        return runner

    @classmethod
    def with_schema(cls, database_url: str, schema: str) -> DefaultRunner:
        """A runner whose runs live in one PostgreSQL schema, one for each tenant; made if it is not there.

        Raises DefinitionError (a ValueError) for a name that no schema may have, before anything is connected to, and
        StoreUnavailable where the database cannot be used.
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
        self._active: set[concurrent.futures.Future[Any]] = set()
        self._pool = DaemonThreads(_MOST_THREADS)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cloaca-runner", daemon=True)
        self._thread.start()
        try:
            self._store: Store = self._begin(open_store(database_url)).result()
        except BaseException:
            self._closed = True
            self._stop_loop()
            raise
        self._workshop = Workshop(
            pool=self._pool,
            slots=asyncio.Semaphore(config.max_concurrent_tasks),
            task_timeout=config.task_timeout_seconds,
        )

    def execute(self, workflow_name: str, context: Context | dict[str, Any] | None = None) -> WorkflowResult:
        """Run a workflow to its end. A failing task gives a result whose status is "Failed"; it does not raise.

        Raises WorkflowNotFound (a KeyError) for a name that no workflow is registered under, ContextError for a context
        over the limit, RunnerClosed after ``shutdown()``. Ctrl-C ends the call at once and cancels the run.
        """
        self._refuse_own_thread("execute")
        workflow = active_registry().workflows.get(workflow_name)
        if workflow is None:
            known = ", ".join(sorted(active_registry().workflows)) or "none"
            raise WorkflowNotFound(f"no workflow is registered as {workflow_name!r}; registered: {known}")
        given = Context(context).to_dict()
        check_size(given)
        stop = Stop()
        running = self._begin(self._execute(workflow, given, stop))
        try:
            return running.result()
        except BaseException:  # its own error, or whatever a signal raised here while the run goes on
            if not running.done():
                self._loop.call_soon_threadsafe(stop.request, StopReason.CANCELLED)
            raise

    async def _execute(self, workflow: Workflow, context: dict[str, Any], stop: Stop) -> WorkflowResult:
        run = WorkflowRun(
            metadata=ObjectMeta(
                name=manual_run_name(workflow.name, uuid.uuid4().hex[:12]),
                labels=run_labels(workflow=workflow.name),
            ),
            spec=RunSpec(workflow=workflow.name, context=context),
            status=RunStatus(attempt=1),
        )
        journal = StoreJournal(self._store, run, created=False)
        deadline = self._config.pipeline_timeout_seconds
        timer = None if deadline is None else self._loop.call_later(deadline, stop.request, StopReason.DEADLINE)
        try:
            status = await execute(workflow, context, run.status, journal, self._workshop, stop)
        finally:
            if timer is not None:
                timer.cancel()
        return _result(workflow, journal.run, status)

    def shutdown(self) -> None:
        """Take no more work, wait for what is under way, let go of the database. Idempotent."""
        self._refuse_own_thread("shutdown")
        with self._lock:
            if self._closed:
                return
            self._closed = True
            active = list(self._active)
        concurrent.futures.wait(active)
        try:
            asyncio.run_coroutine_threadsafe(self._store.close(), self._loop).result()
        finally:
            self._stop_loop()

    def _stop_loop(self) -> None:
        asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown()

    def _begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start ``work`` on the runner's loop. Raises RunnerClosed after ``shutdown()``."""
        with self._lock:
            if self._closed:
                work.close()
                raise RunnerClosed("the runner was shut down: make a new DefaultRunner")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._active.add(future)
        future.add_done_callback(self._active.discard)
        return future

    def _refuse_own_thread(self, what: str) -> None:
        if threading.get_ident() == self._thread.ident:
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
        return f"DefaultRunner({'shut down' if self._closed else 'open'})"


async def _end_tasks() -> None:
    """Cancel what still runs on this loop: async functions that were given up. One that refuses is left behind."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=_PATIENCE)


def _result(workflow: Workflow, run: WorkflowRun, status: RunStatus) -> WorkflowResult:
    completed = status.phase is RunPhase.COMPLETED
    start = status.started_at or datetime.now(timezone.utc)
    return WorkflowResult(
        status="Completed" if completed else "Failed",
        final_context=Context(status.context if status.context is not None else run.spec.context),
        start_time=start,
        end_time=status.finished_at or start,
        error_message=None if completed else status.message,
        workflow_name=workflow.name,
        execution_id=run.metadata.uid,
    )
