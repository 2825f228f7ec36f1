"""Decide about one Trigger. Pure: no I/O, no clock, no logging. Never touches the poller's half of the status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cloaca.authoring.cron import check_expression, check_time_zone
from cloaca.authoring.duration import format_duration, parse_duration
from cloaca.authoring.trigger import MINIMUM_INTERVAL
from cloaca.errors import DefinitionError
from cloaca.resources import CloacinaPackage, ConcurrencyPolicy, ConditionStatus, Trigger, TriggerStatus
from cloaca.resources.conditions import TriggerCondition, TriggerReason, find, set_condition, without_condition
from cloaca.resources.package import TriggerEntry
from cloaca.resources.run import TriggerReference
from cloaca.resources.spans import parse_span
from cloaca.resources.trigger import EffectiveSettings
from cloacina_operator.core.clock import Scheduled, rest, scheduled
from cloacina_operator.core.history import FinishedRun, to_collect
from cloacina_operator.core.plan import Action, CollectRuns, Plan, SubmitRun

TriggerPlan = Plan[TriggerStatus]

ERRORS_UNTIL_DEGRADED = 3
_TAIL = 6  # lines of a traceback that a condition repeats
ACTIVE_SHOWN = 100
"""Names of unfinished runs that a status has: it is written anew with each run that begins or ends."""


@dataclass(frozen=True, kw_only=True)
class ObservedTrigger:
    """Everything that the decision may see."""

    trigger: Trigger
    package: CloacinaPackage | None  # None: there is none of that name
    active_runs: tuple[str, ...] = ()  # the oldest ACTIVE_SHOWN of them
    active_count: int = 0
    finished_runs: tuple[FinishedRun, ...] = ()
    older_twin: str | None = None  # name of an older Trigger for the same function
    poller_alive: bool = False
    now: datetime


@dataclass(frozen=True, kw_only=True)
class _Unfit:
    """Why the trigger cannot be polled. ``stalled``: not until somebody changes the spec or the package."""

    reason: str
    message: str
    stalled: bool


def plan(observed: ObservedTrigger) -> TriggerPlan:
    """Put manifest and spec together and say whether, and why not, the function is polled."""
    settled = settings(observed)
    status, generation, now = observed.trigger.status, observed.trigger.metadata.generation, observed.now
    conditions = status.conditions
    if isinstance(settled, _Unfit):
        effective = None
        conditions = set_condition(
            conditions, TriggerCondition.READY, False, settled.reason, settled.message, now, generation
        )
        if settled.stalled:
            conditions = set_condition(
                conditions, TriggerCondition.STALLED, True, settled.reason, settled.message, now, generation
            )
        else:
            conditions = without_condition(conditions, TriggerCondition.STALLED)
    else:
        effective = settled
        fires = f"fires workflow {settled.workflow!r}"
        conditions = set_condition(
            conditions, TriggerCondition.READY, True, TriggerReason.READY, fires, now, generation
        )
        conditions = without_condition(conditions, TriggerCondition.STALLED)
    clock = _clock(observed, effective)
    status = clock.status
    polling, reason, message = _polling(observed, effective, clock)
    conditions = set_condition(conditions, TriggerCondition.POLLING, polling, reason, message, now, generation)
    degraded, reason, message = _degraded(status)
    conditions = set_condition(conditions, TriggerCondition.DEGRADED, degraded, reason, message, now, generation)
    changes: dict[str, Any] = {
        "observed_generation": generation,
        "conditions": conditions,
        "effective": effective,
        "active": observed.active_runs,
        "active_count": observed.active_count,
    }
    due, after = to_collect(observed.trigger, observed.finished_runs, now)
    fired_by = TriggerReference(name=observed.trigger.name, uid=observed.trigger.metadata.uid)
    return Plan(
        status=status.model_copy(update=changes),
        actions=(*_submission(clock), *((CollectRuns(runs=due, trigger=fired_by),) if due else ())),
        requeue_after=min((time for time in (after, clock.after) if time is not None), default=None),
    )


def _submission(clock: Scheduled) -> tuple[Action, ...]:
    return () if clock.run is None else (SubmitRun(run=clock.run),)


def _clock(observed: ObservedTrigger, effective: EffectiveSettings | None) -> Scheduled:
    trigger, package = observed.trigger, observed.package
    if trigger.spec.schedule is None or trigger.spec.suspend or (package is not None and package.spec.suspend):
        return Scheduled(status=rest(trigger.status))
    if effective is None or package is None:
        return Scheduled(status=trigger.status)
    return scheduled(trigger, effective, package.spec.runs, active=observed.active_runs, now=observed.now)


def settings(observed: ObservedTrigger) -> EffectiveSettings | _Unfit:
    """What holds after manifest and spec are put together (the spec wins), or what is wrong."""
    spec, package = observed.trigger.spec, observed.package
    if package is None:
        said = f"there is no CloacinaPackage {spec.package_ref.name!r} in this namespace"
        return _Unfit(reason=TriggerReason.PACKAGE_NOT_FOUND, message=said, stalled=False)
    if package.status.active is None:
        said = f"package {package.name!r} has no accepted archive: see its conditions"
        return _Unfit(reason=TriggerReason.PACKAGE_NOT_READY, message=said, stalled=False)
    declared = next((entry for entry in package.status.triggers if entry.name == spec.name), None)
    if declared is None:
        known = ", ".join(entry.name for entry in package.status.triggers) or "none"
        said = f"version {package.status.active.version} of package {package.name!r} declares no trigger {spec.name!r};"
        return _Unfit(reason=TriggerReason.TRIGGER_NOT_DECLARED, message=f"{said} it declares: {known}", stalled=True)
    if observed.older_twin is not None:
        said = f"Trigger {observed.older_twin!r} polls the same function already: delete one of the two"
        return _Unfit(reason=TriggerReason.DUPLICATE, message=said, stalled=True)
    return _merged(observed.trigger, package, declared, package.status.active.digest)


def _merged(
    trigger: Trigger, package: CloacinaPackage, declared: TriggerEntry, digest: str
) -> EffectiveSettings | _Unfit:
    spec = trigger.spec
    workflow = spec.workflow or declared.workflow
    known = [entry.name for entry in package.status.workflows]
    if workflow not in known:
        said = f"package {package.name!r} has no workflow {workflow!r}; it has: {', '.join(known)}"
        return _Unfit(reason=TriggerReason.WORKFLOW_UNKNOWN, message=said, stalled=True)
    interval = spec.poll_interval or declared.poll_interval
    for text in (interval, spec.timeout):
        try:
            seconds = parse_span(text)
        except DefinitionError as error:
            return _Unfit(reason=TriggerReason.INTERVAL_INVALID, message=str(error), stalled=True)
        if seconds < MINIMUM_INTERVAL:
            said = f"{text} is shorter than 100ms, the shortest interval"
            return _Unfit(reason=TriggerReason.INTERVAL_TOO_SHORT, message=said, stalled=True)
    if spec.schedule is not None:
        try:
            check_time_zone(spec.time_zone or "UTC")
        except DefinitionError as error:
            return _Unfit(reason=TriggerReason.TIME_ZONE_UNKNOWN, message=str(error), stalled=True)
        try:
            check_expression(spec.schedule)
        except DefinitionError as error:
            return _Unfit(reason=TriggerReason.SCHEDULE_INVALID, message=str(error), stalled=True)
    concurrent = declared.allow_concurrent if spec.allow_concurrent is None else spec.allow_concurrent
    by_flag = ConcurrencyPolicy.ALLOW if concurrent else ConcurrencyPolicy.FORBID
    return EffectiveSettings(
        workflow=workflow,
        poll_interval=_plain(interval),
        concurrency_policy=spec.concurrency_policy or by_flag,
        timeout=_plain(spec.timeout),
        config=declared.config if spec.config is None else spec.config,
        digest=digest,
    )


def _plain(span: str) -> str:
    """``span`` as pollers of every version read it, to the millisecond: 1h30m is 90m."""
    try:
        parse_duration(span)
    except DefinitionError:
        return format_duration(parse_span(span))
    return span


def _polling(observed: ObservedTrigger, effective: EffectiveSettings | None, clock: Scheduled) -> tuple[bool, str, str]:
    package = observed.package
    if observed.trigger.spec.suspend:
        return False, TriggerReason.SUSPENDED, "suspended: set spec.suspend to false to go on"
    if package is not None and package.spec.suspend:
        return False, TriggerReason.PACKAGE_SUSPENDED, f"package {package.name!r} is suspended"
    if effective is None:
        return False, TriggerReason.NOT_READY, "the Ready condition says what is missing"
    if observed.trigger.spec.schedule is not None:
        return True, TriggerReason.SCHEDULED, clock.message
    if not observed.poller_alive:
        return False, TriggerReason.POLLER_FAILED, "the poller of the package is not running (yet)"
    return True, TriggerReason.POLLING, f"every {effective.poll_interval}"


def _degraded(status: TriggerStatus) -> tuple[ConditionStatus, str, str]:
    if status.consecutive_errors >= ERRORS_UNTIL_DEGRADED:
        message = f"the last polls failed, most recently with: {_error_and_tail(status.last_error or '')}"
        return ConditionStatus.TRUE, TriggerReason.ERRORS_IN_A_ROW, message
    before = find(status.conditions, TriggerCondition.DEGRADED)
    if before is not None and before.status is ConditionStatus.TRUE:
        said = before.message.partition("most recently with: ")[2].strip().splitlines()
        return (
            ConditionStatus.FALSE,
            TriggerReason.RECOVERED,
            f"polls end well again, after: {said[0] if said else ''}",
        )
    if before is not None and before.reason == TriggerReason.RECOVERED:
        return ConditionStatus.FALSE, TriggerReason.RECOVERED, before.message
    return ConditionStatus.FALSE, TriggerReason.HEALTHY, ""


def _error_and_tail(error: str) -> str:
    """The first line of ``error``, which says what it was, and the last ones, which say where."""
    first, *rest = error.strip().splitlines() or [""]
    left_out = ["…"] if len(rest) > _TAIL else []
    return "\n".join((first, *left_out, *rest[-_TAIL:]))
