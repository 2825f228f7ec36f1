"""Where a run stands and what is ready. Pure: no I/O, no clock; every method is told what happened and when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cloaca.engine.merge import merge
from cloaca.engine.plan import Plan
from cloaca.engine.record import Kept, Record, TaskRecord
from cloaca.failure import MESSAGE_LIMIT, plain_text
from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.resources.recorded import RecordedStatus


class Progress:
    """The states of a run's tasks, kept up to date at a cost that does not grow with the graph.

    Made from what was recorded (nothing, for a new run), so that a run resumes where its last process stopped: finished
    tasks stay finished, whatever was under way starts again.
    """

    def __init__(self, plan: Plan, context: Mapping[str, Any], recorded: RecordedStatus) -> None:
        self._dependencies = plan.dependencies
        self._dependents = plan.dependents
        self.leaves = plan.leaves
        self._context = context
        self._recorded = recorded
        self._started_at = recorded.started_at  # None: it is the time of the first record
        self._tasks = {task: TaskRecord(task) for task in plan.order}
        self._contexts: dict[str, Kept] = {}  # of completed tasks that are still needed
        self._waiting = dict(plan.needs)
        self._unneeded = dict(plan.uses)
        self._unfinished = len(plan.order)
        self._failure: tuple[str, str | None] | None = None  # message and traceback of the first failed task
        self._ready = list(plan.roots)
        if recorded.tasks:
            self._restore(recorded)

    # --- questions

    @property
    def finished(self) -> bool:
        """Whether no task will run any more."""
        return self._unfinished == 0

    @property
    def failed(self) -> bool:
        """Whether a task has failed for good."""
        return self._failure is not None

    def take_ready(self) -> list[str]:
        """The tasks that became ready since the last call, in a stable order."""
        ready, self._ready = self._ready, []
        return ready

    def input_of(self, task: str) -> dict[str, Any]:
        """The context that ``task`` starts with; a copy of its own."""
        needs = self._dependencies[task]
        if not needs:
            return merge((self._context,))
        return merge(self._contexts[needed].data for needed in needs)

    def attempts_of(self, task: str) -> int:
        """How often ``task`` was started."""
        return self._tasks[task].attempts

    def kept_bytes(self, task: str, context: Kept) -> int:
        """Bytes of JSON of all contexts that the run's record would have if ``task`` ended well with ``context``."""
        dropped = {needed for needed in self._dependencies[task] if self._unneeded[needed] == 1}
        kept = {name: one for name, one in self._contexts.items() if name not in dropped}
        if self._unneeded[task] or not self._dependents[task]:
            kept[task] = context
        return sum(_bytes_of(one.text) for one in kept.values())

    def final_context(self) -> Kept:
        """The merge over the leaves that completed; the run's own context where none did."""
        ended = [self._contexts[leaf] for leaf in self.leaves if leaf in self._contexts]
        if len(ended) == 1:
            return ended[0]
        return Kept(merge([leaf.data for leaf in ended] or [self._context]))

    def record(self, *, phase: RunPhase, now: datetime) -> Record:
        """What is to be recorded: everything that a later process needs, and what a person wants to see.

        What it says is to be asked for before anything else happens.
        """
        done = phase.finished
        self._started_at = self._started_at or now
        message, traceback = self._failure or (None, None)
        return Record(
            recorded=self._recorded,
            phase=phase,
            tasks=tuple(self._tasks.values()),
            checkpoint={} if done else dict(self._contexts),
            context=self.final_context() if phase is RunPhase.COMPLETED else None,
            started_at=self._started_at,
            finished_at=now if done else None,
            message=message,
            traceback=traceback,
        )

    # --- what happened

    def started(self, task: str, now: datetime) -> None:
        """A try of ``task`` begins."""
        self._tasks[task].begin(now)

    def retrying(self, task: str, message: str) -> None:
        """A try of ``task`` failed; another one will be made."""
        self._tasks[task].change(message=plain_text(message, MESSAGE_LIMIT))

    def completed(self, task: str, context: Kept, now: datetime) -> None:
        """``task`` ended well with ``context``."""
        self._tasks[task].end(TaskPhase.COMPLETED, now)
        self._finish(task)
        if self._unneeded[task] or not self._dependents[task]:
            self._contexts[task] = context
        for dependent in self._dependents[task]:
            self._waiting[dependent] -= 1
            if self._waiting[dependent] == 0 and not self._tasks[dependent].phase.finished:
                self._ready.append(dependent)

    def gave_up(self, task: str, message: str, traceback: str | None, now: datetime) -> None:
        """``task`` failed for good: what depends on it is skipped, what does not goes on. ``traceback`` is plain."""
        self._tasks[task].end(TaskPhase.FAILED, now, plain_text(message, MESSAGE_LIMIT))
        self._finish(task)
        if self._failure is None:
            self._failure = (f"task {task!r} failed: {plain_text(message, MESSAGE_LIMIT)}", traceback)
        self._skip_dependents(task, now)

    def failed_as_a_whole(self, message: str) -> None:
        """Every task completed, and the run failed all the same."""
        self._failure = (plain_text(message, MESSAGE_LIMIT), None)

    def cancelled(self, now: datetime, message: str) -> None:
        """Whatever is unfinished will not run."""
        for record in self._tasks.values():
            if not record.phase.finished:
                record.change(phase=TaskPhase.CANCELLED, finished_at=now)
                self._unfinished -= 1
        self._ready = []
        self._failure = (message, None)

    def interrupted(self) -> None:
        """The process stops now and another one will resume: what was under way starts again there."""
        for record in self._tasks.values():
            if record.phase is TaskPhase.RUNNING:
                record.change(phase=TaskPhase.PENDING)

    # --- inside

    def _restore(self, recorded: RecordedStatus) -> None:
        was = {status.id: status for status in recorded.tasks}
        for task in reversed(self._tasks):  # dependents first: they decide whether a context is still needed
            status = was.get(task)
            if status is None:
                continue
            record = self._tasks[task] = TaskRecord(task, status)
            if not status.phase.finished or self._lacks_context(record, recorded):
                record.change(phase=TaskPhase.PENDING, finished_at=None)  # a try that was under way counts as made
        for task, record in self._tasks.items():
            if task in recorded.checkpoint:
                self._contexts[task] = Kept(recorded.checkpoint[task])
            if record.phase.finished:
                self._finish(task)
            if record.phase is TaskPhase.COMPLETED:
                for dependent in self._dependents[task]:
                    self._waiting[dependent] -= 1
            elif record.phase is TaskPhase.FAILED and self._failure is None:
                self._failure = (recorded.message or f"task {task!r} failed", recorded.traceback)
        for task, record in self._tasks.items():
            if record.phase.finished and record.phase is not TaskPhase.COMPLETED:
                self._skip_dependents(task, record.finished_at)
        self._ready = [
            task for task, record in self._tasks.items() if self._waiting[task] == 0 and not record.phase.finished
        ]

    def _lacks_context(self, status: TaskRecord, recorded: RecordedStatus) -> bool:
        """Whether a completed task must run again: the graph was changed, and the context now needed was let go."""
        if status.phase is not TaskPhase.COMPLETED or status.id in recorded.checkpoint:
            return False
        dependents = self._dependents[status.id]
        return not dependents or any(not self._tasks[dependent].phase.finished for dependent in dependents)

    def _finish(self, task: str) -> None:
        """Count ``task`` as finished and let go of contexts that nothing needs any more."""
        self._unfinished -= 1
        for needed in self._dependencies[task]:
            self._unneeded[needed] -= 1
            if self._unneeded[needed] == 0:
                self._contexts.pop(needed, None)

    def _skip_dependents(self, task: str, now: datetime | None) -> None:
        doomed = list(self._dependents[task])
        while doomed:
            dependent = doomed.pop()
            if self._tasks[dependent].phase.finished:
                continue
            self._tasks[dependent].end(TaskPhase.SKIPPED, now, f"skipped: task {task!r} did not complete")
            self._finish(dependent)
            doomed.extend(self._dependents[dependent])


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
