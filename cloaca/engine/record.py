"""What is recorded of a run, as the JSON that a database keeps and as the status that the rest of the system knows.

A run is recorded once for each of its tasks, and nearly all of a record is as in the one before: each task keeps its
own piece of JSON until it changes, and a context's is the one by which its size was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import to_json

from cloaca.resources.meta import rfc3339
from cloaca.resources.run import RunPhase, RunStatus, TaskPhase, TaskStatus


def json_text(value: Any) -> str:
    """A value that ``plain`` has let in as JSON, without spaces."""
    return to_json(value).decode()


_name_json = lru_cache(maxsize=1024)(json_text)  # of tasks and processes, which every record names again


class TaskRecord:
    """The status of one task, as it changes."""

    __slots__ = ("_base", "_began", "attempts", "finished_at", "id", "known_text", "message", "phase", "started_at")

    def __init__(self, task: str, recorded: TaskStatus | None = None) -> None:
        self._base = recorded
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
    def status(self) -> TaskStatus:
        """As the rest of the system knows it."""
        base = self._base or TaskStatus(id=self.id)
        return base.model_copy(
            update={
                "phase": self.phase,
                "attempts": self.attempts,
                "started_at": self.started_at,
                "finished_at": self.finished_at,
                "message": self.message,
            }
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


@dataclass(kw_only=True)
class Record:
    """One record of a run. Not frozen, since that doubles the time in which one is made; nobody changes it."""

    recorded: RunStatus  # what this process started from: attempt, failures, pod and conditions are its
    phase: RunPhase
    tasks: tuple[TaskRecord, ...]
    checkpoint: Mapping[str, Kept]
    context: Kept | None
    started_at: datetime
    finished_at: datetime | None
    message: str | None
    traceback: str | None
    text: str | None = field(init=False)
    """As JSON: what ``status`` says, without what is unset. None: let the store write ``status``."""

    def __post_init__(self) -> None:
        self.text = self._written()

    @property
    def status(self) -> RunStatus:
        """As the rest of the system knows it."""
        return self.recorded.model_copy(
            update={
                "phase": self.phase,
                "tasks": tuple(task.status for task in self.tasks),
                "checkpoint": {task: context.data for task, context in self.checkpoint.items()},
                "context": None if self.context is None else self.context.data,
                "started_at": self.started_at,
                "finished_at": self.finished_at,
                "message": self.message,
                "traceback": self.traceback,
            }
        )

    def _written(self) -> str | None:
        recorded = self.recorded
        if recorded.conditions or recorded.__pydantic_extra__ is not None:
            return None
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
        parts.append(',"conditions":[]}')
        return "".join(parts)
