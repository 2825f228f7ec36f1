"""Library mode: DefaultRunner executes a program's own workflows through the same store and engine as everywhere."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any, TypeVar

from cloaca.authoring.context import Context
from cloaca.authoring.registry import active_registry
from cloaca.authoring.workflow import Workflow
from cloaca.engine.config import DefaultRunnerConfig
from cloaca.engine.execute import Stop, StopReason, Workshop, execute
from cloaca.engine.journal import StoreJournal
from cloaca.errors import RunnerClosed, WorkflowNotFound
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.names import object_name, run_labels
from cloaca.resources.run import RunPhase, RunSpec, RunStatus, WorkflowRun
from cloaca.store import Store, open_store

T = TypeVar("T")

_MOST_THREADS = 1_000  # slots limit how many tasks work; a thread whose task gave up its slot waits beside them


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

    ``database_url``: ``":memory:"``, ``"sqlite:///app.db"`` or a path.
    """

    def __init__(self, database_url: str) -> None:
        self._start(database_url, DefaultRunnerConfig())

    @classmethod
    def with_config(cls, database_url: str, config: DefaultRunnerConfig) -> DefaultRunner:
        """A runner with other settings than the default ones."""
        runner = cls.__new__(cls)
        runner._start(database_url, config)
        return runner

    def _start(self, database_url: str, config: DefaultRunnerConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._closed = False
        self._active: set[concurrent.futures.Future[Any]] = set()
        self._pool = concurrent.futures.ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="cloaca-task")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cloaca-runner", daemon=True)
        self._thread.start()
        try:
            self._store: Store = self._call(open_store(database_url))
            self._slots = self._call(self._make_slots())
        except BaseException:
            self._stop_loop()
            raise

    async def _make_slots(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(self._config.max_concurrent_tasks)

    def execute(self, workflow_name: str, context: Context | dict[str, Any] | None = None) -> WorkflowResult:
        """Run a workflow to its end. A failing task gives a result whose status is "Failed"; it does not raise.

        Raises WorkflowNotFound (a KeyError) for a name that no workflow is registered under, RunnerClosed after
        ``shutdown()``.
        """
        registry = active_registry()
        workflow = registry.workflows.get(workflow_name)
        if workflow is None:
            known = ", ".join(sorted(registry.workflows)) or "none"
            raise WorkflowNotFound(f"no workflow is registered as {workflow_name!r}; registered: {known}")
        given = context if isinstance(context, Context) else Context(context)
        return self._call(self._execute(workflow, given))

    async def _execute(self, workflow: Workflow, context: Context) -> WorkflowResult:
        run = WorkflowRun(
            metadata=ObjectMeta(
                name=f"{object_name(workflow.name)[:39]}-{uuid.uuid4().hex[:12]}",
                labels=run_labels(workflow=workflow.name),
            ),
            spec=RunSpec(workflow=workflow.name, context=context.to_dict()),
            status=RunStatus(attempt=1),
        )
        stop = Stop()
        deadline = self._config.pipeline_timeout_seconds
        timer = None if deadline is None else self._loop.call_later(deadline, stop.request, StopReason.DEADLINE)
        workshop = Workshop(pool=self._pool, slots=self._slots, task_timeout=self._config.task_timeout_seconds)
        journal = StoreJournal(self._store, run, created=False)
        try:
            status = await execute(workflow, run.spec.context, run.status, journal, workshop, stop)
        finally:
            if timer is not None:
                timer.cancel()
        return _result(workflow, journal.run, status)

    def shutdown(self) -> None:
        """Take no more work, wait for what is under way, let go of the database. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            active = list(self._active)
        concurrent.futures.wait(active)
        asyncio.run_coroutine_threadsafe(self._store.close(), self._loop).result()
        self._stop_loop()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown(wait=False)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the runner's loop and wait for it; Ctrl-C ends the wait and the work."""
        with self._lock:
            if self._closed:
                work.close()
                raise RunnerClosed("the runner was shut down: make a new DefaultRunner")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._active.add(future)
        future.add_done_callback(self._active.discard)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def __enter__(self) -> DefaultRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"DefaultRunner({'shut down' if self._closed else 'open'})"


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
