"""Where a run stands and what is ready. Pure: no I/O, no clock; every method is told what happened and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cloaca.authoring import graph
from cloaca.engine.merge import merge
from cloaca.resources.run import RunPhase, RunStatus, TaskPhase, TaskStatus

MESSAGE_LIMIT = 4_096  # characters of a message in a status
TRACEBACK_LIMIT = 16_384


class Progress:
    """The states of a run's tasks, kept up to date at a cost that does not grow with the graph.

    Made from what was recorded (nothing, for a new run), so that a run resumes where its last process stopped: finished
    tasks stay finished, whatever was under way starts again.
    """

    def __init__(
        self, dependencies: Mapping[str, Sequence[str]], context: Mapping[str, Any], recorded: RunStatus
    ) -> None:
        self._dependencies = dependencies
        self._dependents = graph.invert(dependencies)
        self._leaves = graph.leaves(dependencies)
        self._context = context
        self._recorded = recorded
        self._started_at = recorded.started_at  # None: it is the time of the first record
        self._tasks = {task: TaskStatus(id=task) for task in graph.topological_order(dependencies)}
        self._contexts: dict[str, dict[str, Any]] = {}  # of completed tasks that are still needed
        self._waiting = {task: len(set(needs)) for task, needs in dependencies.items()}
        self._unneeded = {task: len(self._dependents[task]) for task in dependencies}
        self._unfinished = len(dependencies)
        self._failure: tuple[str, str | None] | None = None  # message and traceback of the first failed task
        self._ready: list[str] = [task for task, count in self._waiting.items() if count == 0]
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
        needs = list(dict.fromkeys(self._dependencies[task]))
        if not needs:
            return merge((self._context,))
        return merge(self._contexts[needed] for needed in needs)

    def attempts_of(self, task: str) -> int:
        """How often ``task`` was started."""
        return self._tasks[task].attempts

    def final_context(self) -> dict[str, Any]:
        """The merge over the leaves that completed; the run's own context where none did."""
        ended = [self._contexts[leaf] for leaf in self._leaves if leaf in self._contexts]
        return merge(ended or (self._context,))

    def status(self, *, phase: RunPhase, now: datetime) -> RunStatus:
        """What is to be recorded: everything that a later process needs, and what a person wants to see."""
        done = phase.finished
        self._started_at = self._started_at or now
        message, traceback = self._failure or (None, None)
        return self._recorded.model_copy(
            update={
                "phase": phase,
                "tasks": tuple(self._tasks.values()),
                "checkpoint": {} if done else dict(self._contexts),
                "context": self.final_context() if phase is RunPhase.COMPLETED else None,
                "started_at": self._started_at,
                "finished_at": now if done else None,
                "message": message,
                "traceback": traceback,
            }
        )

    # --- what happened

    def started(self, task: str, now: datetime) -> None:
        """A try of ``task`` begins."""
        status = self._tasks[task]
        self._set(task, phase=TaskPhase.RUNNING, attempts=status.attempts + 1, started_at=status.started_at or now)

    def retrying(self, task: str, message: str) -> None:
        """A try of ``task`` failed; another one will be made."""
        self._set(task, message=shortened(message, MESSAGE_LIMIT))

    def completed(self, task: str, context: dict[str, Any], now: datetime) -> None:
        """``task`` ended well with ``context``."""
        self._set(task, phase=TaskPhase.COMPLETED, finished_at=now, message=None)
        self._finish(task)
        if self._unneeded[task] or not self._dependents[task]:
            self._contexts[task] = context
        for dependent in self._dependents[task]:
            self._waiting[dependent] -= 1
            if self._waiting[dependent] == 0 and not self._tasks[dependent].phase.finished:
                self._ready.append(dependent)

    def gave_up(self, task: str, message: str, traceback: str | None, now: datetime) -> None:
        """``task`` failed for good: what depends on it is skipped, what does not goes on."""
        self._set(task, phase=TaskPhase.FAILED, finished_at=now, message=shortened(message, MESSAGE_LIMIT))
        self._finish(task)
        if self._failure is None:
            self._failure = (
                f"task {task!r} failed: {shortened(message, MESSAGE_LIMIT)}",
                None if traceback is None else shortened(traceback, TRACEBACK_LIMIT),
            )
        self._skip_dependents(task, now)

    def failed_as_a_whole(self, message: str) -> None:
        """Every task completed, and the run failed all the same."""
        self._failure = (message, None)

    def cancelled(self, now: datetime, message: str) -> None:
        """Whatever is unfinished will not run."""
        for task, status in self._tasks.items():
            if not status.phase.finished:
                self._set(task, phase=TaskPhase.CANCELLED, finished_at=now)
                self._unfinished -= 1
        self._ready = []
        self._failure = (message, None)

    def interrupted(self) -> None:
        """The process stops now and another one will resume: what was under way starts again there."""
        for task, status in self._tasks.items():
            if status.phase is TaskPhase.RUNNING:
                self._set(task, phase=TaskPhase.PENDING)

    # --- inside

    def _restore(self, recorded: RunStatus) -> None:
        was = {status.id: status for status in recorded.tasks}
        for task in reversed(self._tasks):  # dependents first: they decide whether a context is still needed
            status = was.get(task)
            if status is None:
                continue
            if status.phase.finished and not self._lacks_context(status, recorded):
                self._tasks[task] = status
            else:  # a try that was under way counts as made
                self._tasks[task] = status.model_copy(update={"phase": TaskPhase.PENDING, "finished_at": None})
        for task, status in self._tasks.items():
            if task in recorded.checkpoint:
                self._contexts[task] = recorded.checkpoint[task]
            if status.phase.finished:
                self._finish(task)
            if status.phase is TaskPhase.COMPLETED:
                for dependent in self._dependents[task]:
                    self._waiting[dependent] -= 1
            elif status.phase is TaskPhase.FAILED and self._failure is None:
                self._failure = (recorded.message or f"task {task!r} failed", recorded.traceback)
        for task, status in list(self._tasks.items()):
            if status.phase.finished and status.phase is not TaskPhase.COMPLETED:
                self._skip_dependents(task, status.finished_at)
        self._ready = [
            task for task, status in self._tasks.items() if self._waiting[task] == 0 and not status.phase.finished
        ]

    def _lacks_context(self, status: TaskStatus, recorded: RunStatus) -> bool:
        """Whether a completed task must run again: the graph was changed, and the context now needed was let go."""
        if status.phase is not TaskPhase.COMPLETED or status.id in recorded.checkpoint:
            return False
        dependents = self._dependents[status.id]
        return not dependents or any(not self._tasks[dependent].phase.finished for dependent in dependents)

    def _set(self, task: str, **changes: Any) -> None:
        self._tasks[task] = self._tasks[task].model_copy(update=changes)

    def _finish(self, task: str) -> None:
        """Count ``task`` as finished and let go of contexts that nothing needs any more."""
        self._unfinished -= 1
        for needed in set(self._dependencies[task]):
            self._unneeded[needed] -= 1
            if self._unneeded[needed] == 0:
                self._contexts.pop(needed, None)

    def _skip_dependents(self, task: str, now: datetime | None) -> None:
        doomed = list(self._dependents[task])
        while doomed:
            dependent = doomed.pop()
            if self._tasks[dependent].phase.finished:
                continue
            reason = f"skipped: task {task!r} did not complete"
            self._set(dependent, phase=TaskPhase.SKIPPED, finished_at=now, message=reason)
            self._finish(dependent)
            doomed.extend(self._dependents[dependent])


def shortened(text: str, limit: int) -> str:
    """``text``, or its end with a mark where it is longer than ``limit`` characters: an error's end says most."""
    return text if len(text) <= limit else "… " + text[-(limit - 2) :]
