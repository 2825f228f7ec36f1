"""Execute one WorkflowRun in this process: claim it, resume it, record it. Its exit code says how it went."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable, Mapping
from contextvars import copy_context
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from cloaca.authoring.registry import Registry
from cloaca.authoring.task import TaskDefinition
from cloaca.authoring.value import changed
from cloaca.authoring.workflow import Workflow
from cloaca.engine.crew import Crew
from cloaca.engine.execute import Execution, Stop, StopReason, Workshop
from cloaca.engine.journal import PATIENCE, StoreJournal, patiently
from cloaca.engine.log import Log, once_loaded
from cloaca.engine.loop import LateLoop
from cloaca.engine.record import Kept, Record, TaskRecord
from cloaca.engine.slots import Slots
from cloaca.engine.timers import Timers
from cloaca.errors import CloacaError, RunLost
from cloaca.packages.process import handle
from cloaca.processes.ahead import Ahead
from cloaca.processes.exits import ENDED, INTERRUPTED, LOST
from cloaca.resources.conditions import RunCondition, RunReason, placed
from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.resources.recorded import RecordedCondition, RecordedRun, RecordedStatus
from cloaca.store import RunStore, open_runs

log = Log("cloaca.run")

T = TypeVar("T")

TASKS_AT_ONCE = 4
_THREADS = 256
KEPT_LIMIT = 1_000_000
"""Bytes of JSON of all contexts that a run keeps at once: etcd takes 1.5 MiB for the whole object. It holds on a laptop
too, so that a package which works there works on a cluster."""
_WAITS = "this run waits for it"


def run(job: dict[str, Any], registry: Registry, ahead: Ahead | None = None) -> int:
    """Execute the run that ``job`` names: ``store`` (URL), ``namespace``, ``name``, ``uid``, ``attempt``, and
    ``manifest`` (path, or None), which ``ahead`` has looked for. Returns one of the exit codes of ``exits``. For the
    main thread."""
    once_loaded(_configure_logging)
    loop = LateLoop()
    crew = Crew(_THREADS, name="task", context=copy_context(), whole_process=True)
    workshop = Workshop(crew=crew, loop=loop, timers=Timers(loop), slots=Slots(TASKS_AT_ONCE), kept_limit=KEPT_LIMIT)
    found = None if ahead is None else ahead.found()
    store = patiently(lambda: open_runs(job["store"]), PATIENCE, _WAITS) if found is None else found[0]
    attendance = Attendance(store, job, registry, workshop, over=loop.stop)
    if found is not None:
        attendance.has_seen(found[1])
    handle(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(attendance.interrupt))
    attendance.begin()
    try:
        loop.run()
    finally:
        store.close_here()
    return attendance.result()


def _configure_logging() -> None:
    import logging

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")


class Attendance:
    """One attempt of one run in this process, from its claim to its last record. ``over`` is called once it has ended,
    in whatever thread; then ``result`` says how."""

    def __init__(
        self, store: RunStore, job: dict[str, Any], registry: Registry, workshop: Workshop, over: Callable[[], None]
    ) -> None:
        self._store = store
        self._job = job
        self._registry = registry
        self._workshop = workshop
        self._tell_over = over
        self._stop = Stop()
        self._execution: Execution | None = None  # None: not claimed
        self._code = LOST  # where it never was
        self._error: BaseException | None = None
        self._seen: tuple[RecordedRun | None, ...] = ()

    def has_seen(self, run: RecordedRun | None) -> None:
        """The run was looked at already, and is ``run``."""
        self._seen = (run,)

    def begin(self) -> None:
        """Claim the run, and execute it. Raises RuntimeError where there is no thread for it."""
        self._workshop.crew.submit(self._begin)

    def interrupt(self) -> None:
        """This process is to go: look why, and let the run stop for that reason."""
        self._workshop.crew.submit(self._look_why)

    def abandon(self) -> None:
        """Let go of what runs, and record nothing more."""
        if self._execution is not None:
            self._execution.abandon()

    def result(self) -> int:
        """One of the exit codes of ``exits``. Raises StoreError where the store stayed away."""
        if self._error is not None:
            raise self._error
        if self._execution is None:
            return self._code
        try:
            phase = self._execution.result().phase
        except RunLost as lost:
            log.warning("%s", lost)
            return LOST
        return ENDED if phase.finished else INTERRUPTED

    # --- in threads of the crew

    def _begin(self) -> None:
        try:
            self._execution = self._claim()
        except BaseException as error:  # noqa: BLE001  # the store's; it belongs to whoever waits for the run
            self._error = error
        if self._execution is None:
            self._tell_over()
        else:
            self._execution.run()

    def _claim(self) -> Execution | None:
        """What executes the run, whose first record claims it; None: there is nothing to do, as ``_code`` says."""
        job = self._job
        seen = self._seen[0] if self._seen else self._away(lambda: patiently(self._look, PATIENCE, _WAITS))
        if seen is None or seen.uid != job["uid"] or seen.status.phase.finished:
            return None
        if seen.status.attempt != job["attempt"] - 1:
            return None  # another process has claimed this attempt, or a later one
        journal = _ConditionJournal(self._store, seen, patience=PATIENCE)
        claimed = seen.status._replace(
            attempt=job["attempt"], pod_name=job.get("pod", str(os.getpid())), observed_generation=seen.generation
        )
        workflow = self._registry.workflows.get(seen.workflow)
        if workflow is None:
            known = ", ".join(sorted(self._registry.workflows)) or "none"
            message = f"the package has no workflow {seen.workflow!r}; it has: {known}"
            self._away(lambda: _record(journal, _refused(claimed, message)))
            self._code = ENDED
            return None
        self._arm_deadline(seen)
        workflow = with_manifest(workflow, job.get("manifest"))
        return Execution(workflow, seen.context, claimed, journal, self._workshop, self._stop, self._tell_over)

    def _look(self) -> RecordedRun | None:
        return self._store.run_here(self._job["name"], self._job["namespace"])

    def _look_why(self) -> None:
        """Why this process is to go: the run is to be cancelled, or another process goes on with it."""
        reason = StopReason.INTERRUPTED
        try:
            fresh = self._away(self._look)
            if fresh is not None and fresh.cancel:
                reason = StopReason.CANCELLED
        except CloacaError as error:
            log.warning("cannot tell why this run is to stop, so it will be resumed: %s", error)
        self._stop.request(reason)

    def _away(self, ask: Callable[[], T]) -> T:
        """What ``ask``, which may wait for the store, answers; others may use this thread's place meanwhile."""
        if not self._store.waits:
            return ask()
        self._workshop.crew.leave()
        try:
            return ask()
        finally:
            self._workshop.crew.back()

    def _arm_deadline(self, run: RecordedRun) -> None:
        """The deadline counts from the first start, over all attempts."""
        seconds = run.active_deadline_seconds
        if seconds is None:
            return
        used = 0.0
        if run.status.started_at is not None:
            used = (datetime.now(timezone.utc) - run.status.started_at).total_seconds()
        self._workshop.timers.after(
            max(0.0, seconds - used), functools.partial(self._stop.request, StopReason.DEADLINE)
        )


class _ConditionJournal(StoreJournal):
    """Records with each status the conditions that people, kubectl and kstatus read."""

    def write(self, record: Record) -> None:
        conditions = with_conditions(record, self.conditions, self.generation, datetime.now(timezone.utc))
        self.write_text(record.text(conditions))
        self.conditions = conditions


def with_conditions(
    record: Record, conditions: tuple[RecordedCondition, ...], generation: int, now: datetime
) -> tuple[RecordedCondition, ...]:
    """``conditions`` with those that the phase of ``record`` means."""

    def put(condition: str, value: bool, reason: str, message: str = "") -> None:
        nonlocal conditions
        conditions = placed(conditions, RecordedCondition, condition, value, reason, message, now, generation)

    message = record.message or ""
    match record.phase:
        case RunPhase.RUNNING:
            put(RunCondition.STARTED, True, RunReason.STARTED, f"attempt {record.recorded.attempt}")
            put(RunCondition.READY, False, RunReason.RUNNING)
        case RunPhase.PENDING:
            said = "its process was stopped; another one resumes"
            put(RunCondition.STARTED, False, RunReason.RETRYING, said)
            put(RunCondition.READY, False, RunReason.RETRYING, said)
        case RunPhase.COMPLETED:
            put(RunCondition.READY, True, RunReason.COMPLETED)
        case RunPhase.CANCELLED:
            put(RunCondition.READY, False, RunReason.CANCELLED, message)
            put(RunCondition.STALLED, True, RunReason.CANCELLED, message)
        case RunPhase.FAILED:
            reason = _reason_of_failure(record)
            put(RunCondition.READY, False, reason, message)
            put(RunCondition.STALLED, True, reason, message)
    return conditions


def _reason_of_failure(record: Record) -> str:
    if not record.tasks:
        return RunReason.WORKFLOW_UNKNOWN
    failed = any(task.phase is TaskPhase.FAILED for task in record.tasks)
    cancelled = any(task.phase is TaskPhase.CANCELLED for task in record.tasks)
    return RunReason.DEADLINE_EXCEEDED if cancelled and not failed else RunReason.TASK_FAILED


def _record(journal: StoreJournal, record: Record) -> None:
    try:
        journal.write(record)
    except RunLost as lost:
        log.warning("%s", lost)


def _refused(recorded: RecordedStatus, message: str) -> Record:
    now = datetime.now(timezone.utc)
    return Record(
        recorded=recorded,
        phase=RunPhase.FAILED,
        tasks=tuple(TaskRecord(task.id, task) for task in recorded.tasks),
        checkpoint={task: Kept(context) for task, context in recorded.checkpoint.items()},
        context=None,
        started_at=now,
        finished_at=now,
        message=message,
        traceback=None,
    )


def with_manifest(workflow: Workflow, manifest: str | None) -> Workflow:
    """``workflow`` with the retries and time limits that the manifest states: it is what was reviewed and deployed.

    What the manifest leaves out stays as the decorators have it.
    """
    if manifest is None:
        return workflow
    stated = {task["id"]: task for task in json.loads(Path(manifest).read_bytes()).get("tasks", ())}
    tasks = {task_id: _as_stated(definition, stated.get(task_id, {})) for task_id, definition in workflow.tasks.items()}
    return workflow if tasks == workflow.tasks else changed(workflow, tasks=tasks)


def _as_stated(definition: TaskDefinition, entry: Mapping[str, Any]) -> TaskDefinition:
    changes: dict[str, Any] = {}
    if "retries" in entry and entry["retries"] != definition.retry.max_attempts:
        changes["retry"] = changed(definition.retry, max_attempts=entry["retries"])
    if entry.get("timeout_seconds") is not None:
        changes["timeout_seconds"] = float(entry["timeout_seconds"])
    return changed(definition, **changes) if changes else definition
