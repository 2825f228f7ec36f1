"""What is recorded of a run, as the JSON that a database keeps and as the status that the rest of the system knows.

A run is recorded once for each of its tasks, and nearly all of a record is as in the one before: each task keeps its
own piece of JSON until it changes, and a context's is the one by which its size was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from json import JSONEncoder
from typing import Any, NamedTuple

from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.resources.recorded import RecordedCondition, RecordedStatus, RecordedTask
from cloaca.resources.ref import rfc3339

_encoder = JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))


def json_text(value: Any) -> str:
    """A value that ``plain`` has let in as JSON, without spaces."""
    return _encoder.encode(value)


_name_json = lru_cache(maxsize=1024)(json_text)  # of tasks and processes, which every record names again


class TaskRecord:
    """The status of one task, as it changes."""

    __slots__ = ("_began", "_unknown", "attempts", "finished_at", "id", "known_text", "message", "phase", "started_at")

    def __init__(self, task: str, recorded: RecordedTask | None = None) -> None:
        self._unknown: Mapping[str, Any] | None = None
        self._began: str | None = None  # ``started_at`` as a part of the JSON, which stays; None: not made yet
        self.known_text: str | None = None  # as JSON; None: it changed since
        self.id = task
        self.phase = TaskPhase.PENDING
        self.attempts = 0
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.message: str | None = None
        if recorded is not None:
            self.phase, self.attempts, self.message = recorded.phase, recorded.attempts, recorded.message
            self.started_at, self.finished_at = recorded.started_at, recorded.finished_at
            self._unknown = recorded.unknown

    def begin(self, now: datetime) -> None:
        """A try of it begins."""
        self.known_text = None
        self.phase = TaskPhase.RUNNING
        self.attempts += 1
        if self.started_at is None:
            self.started_at = now

    def end(self, phase: TaskPhase, now: datetime | None, message: str | None = None) -> None:
        """It has ended so; ``message`` says why."""
        self.known_text = None
        self.phase = phase
        self.finished_at = now
        self.message = message

    def change(self, **changes: Any) -> None:
        """Set attributes otherwise."""
        self.known_text = self._began = None
        for name, value in changes.items():
            setattr(self, name, value)

    @property
    def status(self) -> RecordedTask:
        """As another process will read it."""
        return RecordedTask(
            id=self.id,
            phase=self.phase,
            attempts=self.attempts,
            started_at=self.started_at,
            finished_at=self.finished_at,
            message=self.message,
            unknown=self._unknown or {},
        )

    @property
    def text(self) -> str:
        """As JSON."""
        if self.known_text is None:
            # a phase is a str: joined, it is its value, which costs a sixth of asking it for that
            parts = ['{"id":', _name_json(self.id), ',"phase":"', self.phase, f'","attempts":{self.attempts}']
            if self.started_at is not None:
                self._began = self._began or f',"startedAt":"{rfc3339(self.started_at)}"'
                parts.append(self._began)
            if self.finished_at is not None:
                parts.append(f',"finishedAt":"{rfc3339(self.finished_at)}"')
            if self.message is not None:
                parts.append(f',"message":{json_text(self.message)}')
            if self._unknown:
                parts.append(f",{json_text(self._unknown)[1:-1]}")
            parts.append("}")
            self.known_text = "".join(parts)
        return self.known_text


class Kept(NamedTuple):
    """A context that is kept, with its JSON where that is known already."""

    data: dict[str, Any]
    known_text: str | None = None

    @property
    def text(self) -> str:
        """As JSON."""
        return json_text(self.data) if self.known_text is None else self.known_text


class Record(NamedTuple):
    """One record of a run."""

    recorded: RecordedStatus  # what this process started from: attempt, failures and pod are its
    phase: RunPhase
    tasks: tuple[TaskRecord, ...]
    checkpoint: Mapping[str, Kept]
    context: Kept | None
    started_at: datetime
    finished_at: datetime | None
    message: str | None
    traceback: str | None

    @property
    def status(self) -> RecordedStatus:
        """As another process will read it; to be asked for before anything else happens."""
        recorded = self.recorded
        return RecordedStatus(
            phase=self.phase,
            tasks=tuple(task.status for task in self.tasks),
            checkpoint={task: context.data for task, context in self.checkpoint.items()},
            context=None if self.context is None else self.context.data,
            started_at=self.started_at,
            finished_at=self.finished_at,
            attempt=recorded.attempt,
            failures=recorded.failures,
            message=self.message,
            traceback=self.traceback,
            pod_name=recorded.pod_name,
            conditions=recorded.conditions,
            observed_generation=recorded.observed_generation,
            unknown=recorded.unknown,
        )

    def text(self, conditions: Iterable[RecordedCondition] | None = None) -> str:
        """As JSON, without what is unset; to be asked for before anything else happens. ``conditions``: instead of
        those that were recorded."""
        recorded = self.recorded
        tasks = ",".join([task.known_text or task.text for task in self.tasks])
        contexts = ",".join([f"{_name_json(task)}:{context.text}" for task, context in self.checkpoint.items()])
        parts = ['{"phase":"', self.phase, f'","tasks":[{tasks}],"checkpoint":{{{contexts}}}']
        if self.context is not None:
            parts.append(f',"context":{self.context.text}')
        parts.append(f',"startedAt":"{rfc3339(self.started_at)}"')
        if self.finished_at is not None:
            parts.append(f',"finishedAt":"{rfc3339(self.finished_at)}"')
        parts.append(f',"attempt":{recorded.attempt},"failures":{recorded.failures}')
        if self.message is not None:
            parts.append(f',"message":{json_text(self.message)}')
        if self.traceback is not None:
            parts.append(f',"traceback":{json_text(self.traceback)}')
        if recorded.pod_name is not None:
            parts.append(f',"podName":{_name_json(recorded.pod_name)}')
        if conditions is None:
            conditions = recorded.conditions
        parts.append(f',"conditions":{json_text([one.to_json_dict() for one in conditions]) if conditions else "[]"}')
        parts.append(f',"observedGeneration":{recorded.observed_generation}')
        if recorded.unknown:
            parts.append(f",{json_text(recorded.unknown)[1:-1]}")
        parts.append("}")
        return "".join(parts)
