"""Execute one WorkflowRun in this process: claim it, resume it, record it. Its exit code says how it went."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from cloaca.authoring.registry import Registry
from cloaca.authoring.task import TaskDefinition
from cloaca.authoring.value import changed
from cloaca.authoring.workflow import Workflow
from cloaca.engine.crew import Crew
from cloaca.engine.execute import Stop, StopReason, Workshop, execute
from cloaca.engine.journal import PATIENCE, StoreJournal
from cloaca.engine.record import Kept, Record, TaskRecord
from cloaca.engine.slots import Slots
from cloaca.engine.timers import Timers
from cloaca.errors import CloacaError, RunLost, StoreUnavailable
from cloaca.processes.exits import ENDED, INTERRUPTED, LOST
from cloaca.resources.conditions import RunCondition, RunReason, placed
from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.resources.recorded import RecordedCondition, RecordedRun, RecordedStatus
from cloaca.store import RunStore, open_runs

log = logging.getLogger("cloaca.run")

T = TypeVar("T")

TASKS_AT_ONCE = 4
_THREADS = 256


def run(job: dict[str, Any], registry: Registry) -> int:
    """Execute the run that ``job`` names: ``store`` (URL), ``namespace``, ``name``, ``uid``, ``attempt``, and
    ``manifest`` (path, or None). Returns one of the exit codes of ``exits``."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return asyncio.run(_run(job, registry))


async def _run(job: dict[str, Any], registry: Registry) -> int:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    store = await _patiently(lambda: open_runs(job["store"]))
    try:
        return await attend(store, job, registry, asked)
    finally:
        await store.close()


async def attend(store: RunStore, job: dict[str, Any], registry: Registry, asked: asyncio.Event) -> int:
    """Execute the run that ``job`` names, as ``run`` does, until its end or until ``asked`` to stop."""
    seen = await _patiently(lambda: store.run(job["name"], job["namespace"]))
    if seen is None or seen.uid != job["uid"] or seen.status.phase.finished:
        return LOST
    if seen.status.attempt != job["attempt"] - 1:
        return LOST  # another process has claimed this attempt, or a later one
    return await _execute(store, seen, job, registry, asked)


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What ``ask`` answers, again and again while the store is away. Raises StoreUnavailable after a minute."""
    for seconds in PATIENCE:
        try:
            return await ask()
        except StoreUnavailable as error:
            log.warning("the store is away, this run waits for it: %s", error)
        await asyncio.sleep(seconds)
    return await ask()


async def _execute(
    store: RunStore, seen: RecordedRun, job: dict[str, Any], registry: Registry, asked: asyncio.Event
) -> int:
    loop = asyncio.get_running_loop()
    journal = _ConditionJournal(store, seen, patience=PATIENCE)
    claimed = seen.status._replace(attempt=job["attempt"], pod_name=job.get("pod", str(os.getpid())))
    workflow = registry.workflows.get(seen.workflow)
    if workflow is None:
        known = ", ".join(sorted(registry.workflows)) or "none"
        message = f"the package has no workflow {seen.workflow!r}; it has: {known}"
        await _record(journal, _refused(claimed, message))
        return ENDED
    stop = Stop()
    watching = loop.create_task(_obey_signal(asked, stop, store, seen))
    _arm_deadline(seen, stop, loop)
    workshop = Workshop(crew=Crew(_THREADS, name="task"), loop=loop, timers=Timers(loop), slots=Slots(TASKS_AT_ONCE))
    try:
        workflow = with_manifest(workflow, job.get("manifest"))
        status = await execute(workflow, seen.context, claimed, journal, workshop, stop)
    except RunLost as lost:
        log.warning("%s", lost)
        return LOST
    finally:
        watching.cancel()
    return ENDED if status.phase.finished else INTERRUPTED


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
            put(RunCondition.STARTED, False, RunReason.RETRYING, "its process was stopped; another one resumes")
        case RunPhase.COMPLETED:
            put(RunCondition.READY, True, RunReason.COMPLETED)
        case RunPhase.CANCELLED:
            put(RunCondition.READY, False, RunReason.CANCELLED, message)
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


async def _record(journal: StoreJournal, record: Record) -> None:
    try:
        await asyncio.to_thread(journal.write, record)
    except RunLost as lost:
        log.warning("%s", lost)


async def _obey_signal(asked: asyncio.Event, stop: Stop, store: RunStore, run: RecordedRun) -> None:
    """On SIGTERM, look why: the run is to be cancelled, or only this process is to go."""
    await asked.wait()
    reason = StopReason.INTERRUPTED
    try:
        fresh = await store.run(run.name, run.namespace)
        if fresh is not None and fresh.cancel:
            reason = StopReason.CANCELLED
    except CloacaError as error:
        log.warning("cannot tell why this run is to stop, so it will be resumed: %s", error)
    stop.request(reason)


def _arm_deadline(run: RecordedRun, stop: Stop, loop: asyncio.AbstractEventLoop) -> None:
    """The deadline counts from the first start, over all attempts."""
    seconds = run.active_deadline_seconds
    if seconds is None:
        return
    used = 0.0
    if run.status.started_at is not None:
        used = (datetime.now(timezone.utc) - run.status.started_at).total_seconds()
    loop.call_later(max(0.0, seconds - used), stop.request, StopReason.DEADLINE)


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
