"""Decide which run the clock of a Trigger with ``spec.schedule`` makes now. Pure: no I/O, no clock, no logging."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cloaca.authoring.cron import Cron, latest_time, next_time
from cloaca.polling.messages import Fire
from cloaca.polling.tick import fired_tick, intend, run_of, with_ticks
from cloaca.resources import ConcurrencyPolicy, Trigger, TriggerStatus, WorkflowRun
from cloaca.resources.names import scheduled_run_name
from cloaca.resources.package import RunDefaults
from cloaca.resources.ref import rfc3339
from cloaca.resources.trigger import EffectiveSettings
from cloacina_operator.core.spans import lasting

SET_BACK = timedelta(minutes=1)  # by which clocks of operators may differ; what is more, somebody has set
LONGEST_WAIT = timedelta(hours=1)  # clocks are set; look again now and then


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """What the clock says."""

    status: TriggerStatus
    run: WorkflowRun | None = None  # None: no time has come
    after: timedelta | None = None  # None: look again when something changes
    message: str = ""


def rest(status: TriggerStatus) -> TriggerStatus:
    """``status`` of a trigger whose clock stands still: when it goes on, what it missed meanwhile is not made up."""
    if status.scheduled_by is None and status.scheduled_until is None:
        return status
    return status.model_copy(update={"scheduled_by": None, "scheduled_until": None})


def scheduled(
    trigger: Trigger,
    effective: EffectiveSettings,
    defaults: RunDefaults,
    *,
    active: tuple[str, ...],
    now: datetime,
) -> Scheduled:
    """The run for the latest time that has come, and when the next one does.

    A schedule counts from when it was first seen, or set anew. Of several times that were missed only the latest makes
    a run, and only within ``startingDeadlineSeconds``. Under Forbid it waits for the end of the active run. The run is
    named by its time and has it as its key: two operators make one, and one that is gone is not made again. So a clock
    that was set back does no harm: it goes on from what it says now, and a time that comes again has its run already.
    """
    spec, status = trigger.spec, trigger.status
    cron = Cron(spec.schedule or "", spec.time_zone or "UTC")
    until = status.scheduled_until
    if status.scheduled_by != str(cron) or until is None or until - now > SET_BACK:
        until = now
        status = status.model_copy(update={"scheduled_by": str(cron), "scheduled_until": now})
    due = latest_time(cron, until, now) if now > until else None
    following = next_time(cron, max(now, until))
    said = "never again" if following is None else f"next at {rfc3339(following)[:19]}Z"
    after = None if following is None else min(following - now, LONGEST_WAIT)
    if due is None:
        return Scheduled(status=status, after=after, message=f"{cron}: {said}")
    deadline = spec.starting_deadline_seconds
    if deadline is not None and now - due > lasting(deadline):
        given_up = status.model_copy(update={"scheduled_until": due})
        return Scheduled(status=given_up, after=after, message=f"{cron}: {said}")
    if effective.concurrency_policy is ConcurrencyPolicy.FORBID and active:
        return Scheduled(status=status, after=after, message=f"{cron}: {rfc3339(due)[:19]}Z waits for {active[0]}")
    run = _run(trigger, effective, defaults, due)
    tick = fired_tick(time=now, duration=0.0, submitted=[run.name], duplicates=[])
    changes: dict[str, Any] = {"scheduled_until": due, "last_run": run.name, "last_fire_time": now}
    fired = with_ticks(status.model_copy(update=changes), [tick]).model_copy(
        update={"last_poll_time": status.last_poll_time}  # nothing was polled
    )
    return Scheduled(status=fired, run=run, after=after, message=f"{cron}: {said}")


def _run(trigger: Trigger, effective: EffectiveSettings, defaults: RunDefaults, due: datetime) -> WorkflowRun:
    moment = rfc3339(due)
    settled = trigger.model_copy(update={"status": trigger.status.model_copy(update={"effective": effective})})
    fire = Fire(context={**effective.config, "scheduled_time": moment}, key=moment)
    pending = intend(settled, [fire], None, [f"scheduled-{int(due.timestamp())}"])
    named = pending.fires[0].model_copy(update={"name": scheduled_run_name(trigger.name, int(due.timestamp()))})
    return run_of(settled, pending, named, defaults)
