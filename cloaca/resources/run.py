"""WorkflowRun: one execution of a workflow, from submission to its end."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from pydantic import Field

from cloaca.resources.meta import Condition, Resource, Schema, Time
from cloaca.resources.trigger import PackageReference


class RunPhase(str, Enum):
    """Where a run is. The last four are terminal and never overwritten."""

    PENDING = "Pending"
    """Left by the operator, when it starts a process for the run."""
    RUNNING = "Running"
    """Left by the run's process when it ends, or by the operator when the process died for the last time."""
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    DEDUPLICATED = "Deduplicated"
    """Its key had fired already; it was never started."""

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to the run any more."""
        return self not in (RunPhase.PENDING, RunPhase.RUNNING)


class TaskPhase(str, Enum):
    """Where a task of a run is."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    """A task that it depends on did not complete."""
    CANCELLED = "Cancelled"

    @property
    def finished(self) -> bool:
        """Whether the task will not run (again)."""
        return self not in (TaskPhase.PENDING, TaskPhase.RUNNING)


class TriggerReference(Schema):
    """The trigger that fired a run."""

    name: str
    uid: str


class RunSpec(Schema):
    """What is to run. Immutable but for ``cancel``."""

    workflow: str = Field(min_length=1)
    package_ref: PackageReference | None = None
    """Unset in library mode only, where the workflow is one of the program's own."""
    digest: str | None = None
    """The archive that it runs, pinned when it was submitted; unset: the active one when it starts."""
    context: dict[str, Any] = Field(default_factory=dict)
    trigger_ref: TriggerReference | None = None
    key: str | None = None
    """One run per trigger and key, ever."""
    fire_id: str | None = None
    """Tells a repeated submission of one fire from another fire that took the name."""
    replay_of: str | None = None
    cancel: bool = False
    backoff_limit: int = Field(default=3, ge=0)
    active_deadline_seconds: int | None = Field(default=None, ge=1)
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)


class TaskStatus(Schema):
    """One task of a run."""

    id: str
    phase: TaskPhase = TaskPhase.PENDING
    attempts: int = 0
    started_at: Time | None = None
    finished_at: Time | None = None
    message: str | None = None


class RunStatus(Schema):
    """Written by the run's own process; closed by the operator where that died without a word."""

    phase: RunPhase = RunPhase.PENDING
    tasks: tuple[TaskStatus, ...] = ()
    checkpoint: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Task id → context, for the finished tasks that some unfinished task still needs; no more."""
    context: dict[str, Any] | None = None
    """The final context; set when the run completed."""
    started_at: Time | None = None
    finished_at: Time | None = None
    attempt: int = 0
    """Which process it is, from 1; 0: none was started."""
    message: str | None = None
    traceback: str | None = None
    """Of the task that failed the run."""
    pod_name: str | None = None
    """The pod, or the local process, of the last attempt."""
    conditions: tuple[Condition, ...] = ()


class WorkflowRun(Resource[RunSpec, RunStatus]):
    """One execution of a workflow."""

    KIND: ClassVar[str] = "WorkflowRun"
    PLURAL: ClassVar[str] = "workflowruns"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("crun",)

    kind: str = "WorkflowRun"
    status: RunStatus = Field(default_factory=RunStatus)
