"""What ``DefaultRunner.execute`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cloaca.authoring.context import Context


@dataclass(frozen=True, kw_only=True)
class WorkflowResult:
    """How an execution ended.

    >>> import cloaca
    >>> with cloaca.WorkflowBuilder("fails"):
    ...     @cloaca.task(retry_attempts=0)
    ...     def load(context):
    ...         raise OSError("disk full")
    >>> with cloaca.DefaultRunner(":memory:") as runner:
    ...     result = runner.execute("fails")
    >>> result.status, result.error_message
    ('Failed', "task 'load' failed: OSError: disk full")
    """

    status: str  # "Completed" or "Failed"
    final_context: Context
    start_time: datetime
    end_time: datetime
    error_message: str | None  # None: it completed
    workflow_name: str
    execution_id: str

    @property
    def duration(self) -> timedelta:
        """From start to end.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("greet"):
        ...     hello = cloaca.task(id="hello")(lambda context: context.set("said", "hello"))
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     result = runner.execute("greet")
        >>> result.duration == result.end_time - result.start_time
        True
        """
        return self.end_time - self.start_time
