"""Cron schedules of a program's own workflows: kept in the store, fired once for each time, whoever looks.

A run's name is made from the schedule's id and the time that it is for, so that of two runners on one database, or one
that died in between, only one makes it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta, timezone
from time import monotonic
from typing import Any

from cloaca.authoring.cron import Cron, latest_time, next_time, parse_cron, times_between
from cloaca.authoring.naming import checked_name
from cloaca.authoring.workflow import Workflow
from cloaca.engine.config import DefaultRunnerConfig
from cloaca.errors import Conflict, DefinitionError, NotFound, ScheduleNotFound
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.names import digest, label_value, run_labels
from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.resources.run import RunSpec, WorkflowRun
from cloaca.resources.schedules import SCHEDULE_LABEL, CatchupPolicy, CronSchedule, CronScheduleSpec, DroppedTimes
from cloaca.store import Store

log = logging.getLogger("cloaca.library")

_MOST_COUNTED = 10_000  # dropped times that are counted: a schedule of seconds drops a million in a fortnight
_DROPPED_KEPT = 20
SET_BACK = timedelta(minutes=1)  # by which clocks of runners may differ; what is more, somebody has set

Submit = Callable[[Workflow, WorkflowRun], Awaitable[bool]]
"""Make a run and execute it; False: it was there already."""


class CronSchedules:
    """The schedules of one database. Belongs to the runner's loop."""

    def __init__(
        self, store: Store, config: DefaultRunnerConfig, workflows: Mapping[str, Workflow], submit: Submit
    ) -> None:
        self._store = store
        self._config = config
        self._workflows = workflows
        self._submit = submit
        self._changed = asyncio.Event()

    # --- what a program asks for

    async def register(self, workflow: str, expression: str, time_zone: str, policy: str) -> str:
        checked_name(workflow, "the workflow of a cron schedule")
        cron = parse_cron(expression, time_zone)
        try:
            catchup = CatchupPolicy(policy)
        except ValueError:
            known = ", ".join(known.value for known in CatchupPolicy)
            raise DefinitionError(f"catchup_policy is {policy!r}, but must be one of {known}") from None
        if workflow not in self._workflows:
            log.warning("the cron schedule for %r waits until a workflow is registered under that name", workflow)
        schedule_id = str(uuid.uuid4())
        spec = CronScheduleSpec(
            workflow=workflow,
            expression=cron.expression,
            time_zone=cron.time_zone,
            catchup_policy=catchup,
            changed_at=datetime.now(timezone.utc),
        )
        await self._store.create(CronSchedule(metadata=ObjectMeta(name=schedule_id), spec=spec))
        self._changed.set()
        return schedule_id

    async def listed(self, enabled_only: bool, limit: int | None, offset: int | None) -> list[dict[str, Any]]:
        found = await self._store.list(CronSchedule)
        shown = [shown_schedule(schedule) for schedule in found if schedule.spec.enabled or not enabled_only]
        return page(sorted(shown, key=lambda entry: (entry["created_at"], entry["id"])), limit, offset)

    async def get(self, schedule_id: str) -> dict[str, Any]:
        return shown_schedule(await self._found(schedule_id, "get"))

    async def change(self, schedule_id: str, doing: str, **changes: Any) -> None:
        while True:
            schedule = await self._found(schedule_id, doing)
            try:
                await self._store.update(schedule.with_spec(changed_at=datetime.now(timezone.utc), **changes))
            except (Conflict, NotFound):
                continue
            self._changed.set()
            return

    async def retime(self, schedule_id: str, expression: str | None, time_zone: str | None) -> None:
        spec = (await self._found(schedule_id, "update")).spec
        cron = parse_cron(expression or spec.expression, time_zone or spec.time_zone)
        await self.change(schedule_id, "update", expression=cron.expression, time_zone=cron.time_zone)

    async def delete(self, schedule_id: str) -> None:
        schedule = await self._found(schedule_id, "delete")
        await self._store.delete(schedule.ref)

    async def history(self, schedule_id: str, limit: int | None, offset: int | None) -> list[dict[str, Any]]:
        name = checked_id(schedule_id)
        runs = await self._store.list(WorkflowRun, labels={SCHEDULE_LABEL: label_value(name)})
        if not runs:
            await self._found(schedule_id, "get")
        shown = [shown_execution(run) for run in runs]
        return page(sorted(shown, key=lambda entry: entry["scheduled_time"], reverse=True), limit, offset)

    async def stats(self, since: datetime) -> dict[str, Any]:
        runs = [
            run
            for run in await self._store.list(WorkflowRun)
            if SCHEDULE_LABEL in run.metadata.labels and (run.metadata.creation_timestamp or since) >= since
        ]
        threshold = datetime.now(timezone.utc) - timedelta(minutes=self._config.cron_lost_threshold_minutes)
        dropped = [gap for schedule in await self._store.list(CronSchedule) for gap in schedule.status.dropped]
        successful = sum(run.status.phase is RunPhase.COMPLETED for run in runs)
        return {
            "total_executions": len(runs),
            "successful_executions": successful,
            "lost_executions": sum(is_lost(run, threshold) for run in runs),
            "dropped_executions": sum(gap.count for gap in dropped if gap.noticed_at >= since),
            "success_rate": 100.0 * successful / len(runs) if runs else 0.0,
        }

    async def _found(self, schedule_id: str, doing: str) -> CronSchedule:
        name = checked_id(schedule_id)
        schedule = await self._store.get(CronSchedule, name)
        if schedule is None:
            raise ScheduleNotFound(f"Failed to {doing} cron schedule: there is none with the id {schedule_id}")
        return schedule

    # --- firing

    async def keep_firing(self) -> None:
        """Fire what comes due, until cancelled. Looks at once when this runner changes a schedule, and every
        ``cron_poll_interval_seconds`` for those of other runners."""
        while True:
            self._changed.clear()
            now = datetime.now(timezone.utc)
            try:
                wait = await self.fire_due(now)
            except Exception as error:  # noqa: BLE001  # the store may be away for a while
                log.warning("cron schedules could not be looked at, and will be again: %s", error)
                wait = 1.0
            try:
                await asyncio.wait_for(self._changed.wait(), min(wait, self._config.cron_poll_interval_seconds))
            except (asyncio.TimeoutError, TimeoutError):
                continue

    async def fire_due(self, now: datetime) -> float:
        """Make the runs of every time up to ``now``; seconds until the next one, whoever sets the clock meanwhile."""
        began = monotonic()
        wait = float(self._config.cron_poll_interval_seconds)
        for schedule in await self._store.list(CronSchedule):
            workflow = self._workflows.get(schedule.spec.workflow)
            if not schedule.spec.enabled or workflow is None:
                continue
            if counted_from(schedule) - now > SET_BACK:
                await self._count_anew(schedule, now)
                wait = min(wait, 1.0)
                continue
            due = due_times(schedule, now, self._config.cron_max_catchup_executions)
            for time in due:
                await self._submit(workflow, run_for(schedule, time))
            if due:
                dropped = dropped_times(schedule, now, due[-1])
                if dropped is not None:
                    _say_dropped(schedule, dropped)
                await self._cover(schedule, now, due[-1], dropped)
            following = next_time(cron_of(schedule), now)
            if following is not None:
                wait = min(wait, (following - now).total_seconds())
        return max(0.0, wait - (monotonic() - began))

    async def _count_anew(self, schedule: CronSchedule, now: datetime) -> None:
        """The clock was set back: the schedule goes on from what it says. A time that comes again has its run."""
        try:
            if schedule.spec.changed_at > now:
                schedule = await self._store.update(schedule.with_spec(changed_at=now))
            await self._store.write_status(schedule.with_status(covered_until=now))
        except (Conflict, NotFound):  # changed meanwhile: the next look decides
            return

    async def _cover(self, schedule: CronSchedule, now: datetime, last: datetime, dropped: DroppedTimes | None) -> None:
        changes: dict[str, Any] = {"covered_until": now, "last_run_at": last}
        if dropped is not None:
            changes["dropped"] = (dropped, *schedule.status.dropped)[:_DROPPED_KEPT]
        try:
            await self._store.write_status(schedule.with_status(**changes))
        except (Conflict, NotFound):  # changed meanwhile; who looks again finds that these runs exist
            return


def _say_dropped(schedule: CronSchedule, dropped: DroppedTimes) -> None:
    more = " or more" if dropped.count == _MOST_COUNTED else ""
    log.warning(
        "cron schedule %s of %r: %d%s missed times from %s to %s are dropped: they are more than "
        "cron_max_catchup_executions",
        *(
            schedule.name,
            schedule.spec.workflow,
            dropped.count,
            more,
            dropped.first.isoformat(),
            dropped.last.isoformat(),
        ),
    )


def checked_id(schedule_id: str) -> str:
    """Raise DefinitionError (a ValueError) unless it is an id that ``register`` gives."""
    try:
        return str(uuid.UUID(schedule_id))
    except (ValueError, TypeError, AttributeError):
        raise DefinitionError(
            f"Invalid schedule ID {schedule_id!r}: give one that register_cron_workflow returned"
        ) from None


def parsed_date(text: str) -> datetime:
    """An ISO 8601 time, in UTC where it names no offset. Raises DefinitionError (a ValueError)."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, TypeError, AttributeError):
        raise DefinitionError(
            f"Invalid datetime format {text!r}: write ISO 8601, such as 2026-01-31T09:00:00Z"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def page(entries: list[dict[str, Any]], limit: int | None, offset: int | None) -> list[dict[str, Any]]:
    """``limit`` entries (None: all) after the first ``offset``. Raises DefinitionError for negative numbers."""
    for name, value in (("limit", limit), ("offset", offset)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise DefinitionError(f"{name} is {value!r}, but must be an integer of at least 0, or None")
    start = offset or 0
    return entries[start:] if limit is None else entries[start : start + limit]


def cron_of(schedule: CronSchedule) -> Cron:
    """The expression in its zone."""
    return Cron(schedule.spec.expression, schedule.spec.time_zone)


def counted_from(schedule: CronSchedule) -> datetime:
    """The times up to this one are done with: they had their runs, or are of before it was made or changed."""
    return max(schedule.spec.changed_at, schedule.status.covered_until or schedule.spec.changed_at)


def due_times(schedule: CronSchedule, now: datetime, most: int) -> tuple[datetime, ...]:
    """The times up to ``now`` for which a run is to be made, as the schedule's policy says."""
    start = counted_from(schedule)
    if schedule.spec.catchup_policy is CatchupPolicy.RUN_ALL:
        return times_between(cron_of(schedule), start, now, most)
    last = latest_time(cron_of(schedule), start, now)
    return () if last is None else (last,)


def dropped_times(schedule: CronSchedule, now: datetime, last: datetime) -> DroppedTimes | None:
    """The times after ``last``, the last one that runs, up to ``now`` for which the policy makes no run because there
    are too many; None: there are none."""
    if schedule.spec.catchup_policy is not CatchupPolicy.RUN_ALL:
        return None
    times = times_between(cron_of(schedule), last, now, _MOST_COUNTED)
    latest = latest_time(cron_of(schedule), last, now)
    if latest is None:
        return None
    return DroppedTimes(noticed_at=now, count=len(times), first=times[0], last=latest)


def run_for(schedule: CronSchedule, time: datetime) -> WorkflowRun:
    """The one run of ``schedule`` for ``time``."""
    spec, at = schedule.spec, time.isoformat()
    return WorkflowRun(
        metadata=ObjectMeta(
            name=f"cron-{digest(schedule.name, at, length=26)}",
            labels={**run_labels(workflow=spec.workflow), SCHEDULE_LABEL: label_value(schedule.name)},
        ),
        spec=RunSpec(
            workflow=spec.workflow,
            context={
                "scheduled_time": at,
                "schedule_id": schedule.name,
                "schedule_timezone": spec.time_zone,
                "schedule_expression": spec.expression,
            },
        ),
    )


def is_lost(run: WorkflowRun, threshold: datetime) -> bool:
    """Whether its process died and nobody resumed it: closed for that, or left since before ``threshold``."""
    status = run.status
    if not status.phase.finished:
        return (run.metadata.creation_timestamp or threshold) < threshold
    failed_by_itself = any(task.phase is TaskPhase.FAILED for task in status.tasks)
    return status.phase is RunPhase.FAILED and status.failures > 0 and not failed_by_itself


def shown_schedule(schedule: CronSchedule) -> dict[str, Any]:
    """As the API gives it."""
    spec, status = schedule.spec, schedule.status
    following = None
    if spec.enabled:
        following = next_time(cron_of(schedule), counted_from(schedule))
    return {
        "id": schedule.name,
        "workflow_name": spec.workflow,
        "cron_expression": spec.expression,
        "timezone": spec.time_zone,
        "enabled": spec.enabled,
        "catchup_policy": spec.catchup_policy.value,
        "next_run_at": iso(following),
        "last_run_at": iso(status.last_run_at),
        "created_at": iso(schedule.metadata.creation_timestamp),
        "updated_at": iso(spec.changed_at),
    }


def shown_execution(run: WorkflowRun) -> dict[str, Any]:
    """As the API gives it."""
    return {
        "id": run.metadata.uid,
        "schedule_id": run.spec.context["schedule_id"],
        "workflow_execution_id": run.metadata.uid,
        "scheduled_time": run.spec.context["scheduled_time"],
        "status": run.status.phase.value,
        "error_message": None if run.status.phase is RunPhase.COMPLETED else run.status.message,
        "started_at": iso(run.status.started_at),
        "completed_at": iso(run.status.finished_at),
        "created_at": iso(run.metadata.creation_timestamp),
    }


def iso(moment: datetime | None) -> str | None:
    """ISO 8601, or None."""
    return None if moment is None else moment.isoformat()
