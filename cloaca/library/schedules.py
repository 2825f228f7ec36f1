"""What a program calls to schedule workflows and to switch triggers: each asks the runner's loop, none decides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

from cloaca.library.cron import CronSchedules, checked_id, parsed_date
from cloaca.library.triggers import TriggerSchedules

T = TypeVar("T")


class ScheduleMethods(ABC):
    """The schedules of a runner, for threads of its program."""

    _cron: CronSchedules
    _triggers: TriggerSchedules

    @abstractmethod
    def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives on the runner's loop."""

    # --- cron schedules

    def register_cron_workflow(
        self, workflow: str, expression: str, timezone: str | None = None, catchup_policy: str = "skip"
    ) -> str:
        """Run ``workflow`` whenever ``expression`` comes due in ``timezone`` (IANA; None: UTC); returns an id.

        The schedule is durable: any runner on this database whose program has the workflow fires it, each time once.
        ``catchup_policy`` says what becomes of times that no runner was there for: "skip" (the last of them runs once)
        or "run_all" (each runs, oldest first, up to ``cron_max_catchup_executions``; a warning in the log and
        ``dropped_executions`` in the stats tell of those beyond). Raises DefinitionError (a ValueError).

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("nightly"):
        ...     report = cloaca.task(id="report")(lambda context: None)
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     schedule = runner.register_cron_workflow("nightly", "0 2 * * *", "Europe/Zurich")
        ...     runner.get_cron_schedule(schedule)["cron_expression"]
        '0 2 * * *'
        """
        return self._ask(self._cron.register(workflow, expression, timezone or "UTC", catchup_policy))

    def list_cron_schedules(
        self, enabled_only: bool | None = None, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """The schedules of this database, oldest first.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("nightly"):
        ...     report = cloaca.task(id="report")(lambda context: None)
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     schedule = runner.register_cron_workflow("nightly", "0 2 * * *", "Europe/Zurich")
        ...     [entry["workflow_name"] for entry in runner.list_cron_schedules(enabled_only=True)]
        ['nightly']
        """
        return self._ask(self._cron.listed(bool(enabled_only), limit, offset))

    def get_cron_schedule(self, schedule_id: str) -> dict[str, Any]:
        """One schedule. Raises ScheduleNotFound (a ValueError and a KeyError), DefinitionError for what is not an id.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("nightly"):
        ...     report = cloaca.task(id="report")(lambda context: None)
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     schedule = runner.register_cron_workflow("nightly", "0 2 * * *", "Europe/Zurich")
        ...     runner.get_cron_schedule(schedule)["timezone"]
        'Europe/Zurich'
        """
        return self._ask(self._cron.get(schedule_id))

    def update_cron_schedule(self, schedule_id: str, expression: str | None, timezone: str | None = None) -> None:
        """Change expression and time zone (None: as it is). Raises as ``get_`` and ``register_`` do.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("nightly"):
        ...     report = cloaca.task(id="report")(lambda context: None)
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     schedule = runner.register_cron_workflow("nightly", "0 2 * * *", "Europe/Zurich")
        ...     runner.update_cron_schedule(schedule, "0 3 * * *", None)
        ...     runner.get_cron_schedule(schedule)["cron_expression"]
        '0 3 * * *'
        """
        checked_id(schedule_id)
        self._ask(self._cron.retime(schedule_id, expression, timezone))

    def set_cron_schedule_enabled(self, schedule_id: str, enabled: bool) -> None:
        """Switch it on or off; the time that it was off is not caught up on.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("nightly"):
        ...     report = cloaca.task(id="report")(lambda context: None)
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     schedule = runner.register_cron_workflow("nightly", "0 2 * * *", "Europe/Zurich")
        ...     runner.set_cron_schedule_enabled(schedule, False)
        ...     runner.list_cron_schedules(enabled_only=True)
        []
        """
        self._ask(self._cron.change(schedule_id, "update", enabled=bool(enabled)))

    def delete_cron_schedule(self, schedule_id: str) -> None:
        """Remove it; its runs stay.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("nightly"):
        ...     report = cloaca.task(id="report")(lambda context: None)
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     schedule = runner.register_cron_workflow("nightly", "0 2 * * *", "Europe/Zurich")
        ...     runner.delete_cron_schedule(schedule)
        ...     runner.list_cron_schedules()
        []
        """
        self._ask(self._cron.delete(schedule_id))

    def get_cron_execution_history(
        self, schedule_id: str, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """What the schedule ran, newest first; after it was deleted too. Raises ScheduleNotFound if it never was.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("nightly"):
        ...     report = cloaca.task(id="report")(lambda context: None)
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     schedule = runner.register_cron_workflow("nightly", "0 2 * * *", "Europe/Zurich")
        ...     runner.get_cron_execution_history(schedule, limit=10)
        []
        """
        return self._ask(self._cron.history(schedule_id, limit, offset))

    def get_cron_execution_stats(self, since: str) -> dict[str, Any]:
        """Counts over every schedule since an ISO 8601 time; ``success_rate`` in percent of those that were made.

        ``dropped_executions`` are missed times beyond ``cron_max_catchup_executions``, for which no run was made.

        >>> import cloaca
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     runner.get_cron_execution_stats("2026-01-01T00:00:00Z")["total_executions"]
        0
        """
        return self._ask(self._cron.stats(parsed_date(since)))

    # --- triggers

    def list_trigger_schedules(
        self, enabled_only: bool | None = None, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """The triggers that this program registered with a workflow, which the runner polls.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("ingest"):
        ...     load = cloaca.task(id="load")(lambda context: None)
        >>> @cloaca.trigger(workflow="ingest", poll_interval="1h")
        ... def inbox():
        ...     return cloaca.TriggerResult.skip()
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     "inbox" in [entry["trigger_name"] for entry in runner.list_trigger_schedules()]
        True
        """
        return self._ask(self._triggers.listed(bool(enabled_only), limit, offset))

    def get_trigger_schedule(self, trigger_name: str) -> dict[str, Any] | None:
        """One trigger; None if there is none of that name.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("ingest"):
        ...     load = cloaca.task(id="load")(lambda context: None)
        >>> @cloaca.trigger(workflow="ingest", poll_interval="1h")
        ... def arrivals():
        ...     return cloaca.TriggerResult.skip()
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     runner.get_trigger_schedule("arrivals")["poll_interval_ms"], runner.get_trigger_schedule("outbox")
        (3600000, None)
        """
        return self._ask(self._triggers.get(trigger_name))

    def set_trigger_enabled(self, trigger_name: str, enabled: bool) -> None:
        """Switch polling on or off. Raises ScheduleNotFound (a ValueError and a KeyError).

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("ingest"):
        ...     load = cloaca.task(id="load")(lambda context: None)
        >>> @cloaca.trigger(workflow="ingest", poll_interval="1h")
        ... def uploads():
        ...     return cloaca.TriggerResult.skip()
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     runner.set_trigger_enabled("uploads", False)
        ...     runner.get_trigger_schedule("uploads")["enabled"]
        False
        """
        self._ask(self._triggers.set_enabled(trigger_name, bool(enabled)))

    def get_trigger_execution_history(
        self, trigger_name: str, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """What the trigger fired, newest first.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("ingest"):
        ...     load = cloaca.task(id="load")(lambda context: None)
        >>> @cloaca.trigger(workflow="ingest", poll_interval="1h")
        ... def orders():
        ...     return cloaca.TriggerResult.skip()
        >>> with cloaca.DefaultRunner(":memory:") as runner:
        ...     runner.get_trigger_execution_history("orders")
        []
        """
        return self._ask(self._triggers.history(trigger_name, limit, offset))
