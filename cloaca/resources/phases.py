"""Where runs and tasks are, and whether conditions hold: the words alone, for processes that load no types."""

from __future__ import annotations

from enum import Enum


class RunPhase(str, Enum):
    """Where a run is. The last four are terminal and never overwritten."""

    PENDING = "Pending"
    """Left by the operator, when it starts a process for the run."""
    RUNNING = "Running"
    """Left by the run's process when it ends, or by the operator when the process died for the last time."""
    COMPLETED = "Completed"
    """Every task completed; status.context has the result."""
    FAILED = "Failed"
    """A task failed for good, or the process died too often or ran too long; status.message says which."""
    CANCELLED = "Cancelled"
    """Its spec.cancel was set before it ended otherwise."""
    DEDUPLICATED = "Deduplicated"
    """Its key had fired already; it was never started."""

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to the run any more."""
        return self not in (RunPhase.PENDING, RunPhase.RUNNING)


class TaskPhase(str, Enum):
    """Where a task of a run is."""

    PENDING = "Pending"
    """Waits for its dependencies, or for a free slot."""
    RUNNING = "Running"
    """Started and not ended; waits between two attempts too."""
    COMPLETED = "Completed"
    """Its context is part of the result."""
    FAILED = "Failed"
    """Every attempt failed, or its error is not one to retry."""
    SKIPPED = "Skipped"
    """A task that it depends on did not complete."""
    CANCELLED = "Cancelled"
    """The run was cancelled before it ended."""

    @property
    def finished(self) -> bool:
        """Whether the task will not run (again)."""
        return self not in (TaskPhase.PENDING, TaskPhase.RUNNING)


class ConditionStatus(str, Enum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"
