"""Say which Events an object is worth, as it stands. Pure: no I/O, no clock, no memory of what was said before.

Each has an identity made of what happened, and a name made of that: who says it twice makes the same object twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from cloaca.resources import CloacinaPackage, ConditionStatus, Ref, Resource, RunPhase, Trigger, WorkflowRun
from cloaca.resources.conditions import (
    PackageCondition,
    PackageReason,
    RunCondition,
    RunReason,
    TriggerCondition,
    TriggerReason,
    bounded,
    find,
)
from cloaca.resources.meta import Condition
from cloaca.resources.ref import API_VERSION, rfc3339
from cloaca.resources.trigger import TickOutcome
from cloaca.store.oddities import Oddity

REPORTER = "cloacina.io/operator"
FIRED = "Fired"
LEFT_OUT = "LeftOut"
"""Reason of the Event on an object that the operator cannot read or handle."""
LONGEST_NOTE = 1_000  # bytes; the API takes 1024
_LONGEST_NAME = 253
_NEVER = datetime.min.replace(tzinfo=timezone.utc)
_ON_THE_WAY = (PackageReason.PROGRESSING, PackageReason.FETCHING, PackageReason.INSPECTING)
_NOT_YET = (TriggerReason.PROGRESSING, TriggerReason.PACKAGE_NOT_READY)  # the package says what is wrong with it
_IN_LINE = (RunReason.WAITING_FOR_RUN, RunReason.WAITING_FOR_SLOT)  # no trouble: their turn comes


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to an object and that a person wants to see there."""

    about: Ref
    uid: str  # of the object
    reason: str
    note: str
    at: datetime
    identity: str  # differs from that of every other thing that happens to the object
    warning: bool = False
    again: bool = False  # it says what often is so: seldom said is enough
    api_version: str = API_VERSION  # of the object

    @property
    def name(self) -> str:
        """Of the Event object: the same for whoever says it."""
        mark = hashlib.sha256(f"{self.uid}\0{self.reason}\0{self.identity}".encode()).hexdigest()[:16]
        return f"{self.about.name[: _LONGEST_NAME - len(mark) - 1]}.{mark}"

    def document(self, instance: str, at: datetime, *, left_out: int = 0) -> dict[str, Any]:
        """The object of events.k8s.io/v1, as ``instance`` reports it. ``left_out``: how many of its kind were not said
        since the last one that was."""
        note = self.note if not left_out else f"{self.note} (and {left_out} more since the last of these)"
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": self.name, "namespace": self.about.namespace},
            "eventTime": rfc3339(at),
            "reportingController": REPORTER,
            "reportingInstance": instance[:128],
            "type": "Warning" if self.warning else "Normal",
            "reason": self.reason[:128],
            "action": self.reason[:128],
            "note": bounded(note, LONGEST_NOTE),
            "regarding": {
                "apiVersion": self.api_version,
                "kind": self.about.kind,
                "namespace": self.about.namespace,
                "name": self.about.name,
                "uid": self.uid,
            },
        }


def of_oddity(oddity: Oddity, at: datetime) -> Event:
    """A warning about an object that cannot be read or handled."""
    return Event(
        about=oddity.ref,
        uid=oddity.uid,
        reason=LEFT_OUT,
        note=oddity.message,
        at=at,
        identity=oddity.message,
        warning=True,
        api_version=oddity.api_version,
    )


def events_of(obj: Resource[Any, Any]) -> tuple[Event, ...]:
    """What ``obj`` says of itself, and a run of the trigger that it names."""
    if isinstance(obj, CloacinaPackage):
        return _of_package(obj)
    if isinstance(obj, Trigger):
        return _of_trigger(obj)
    if isinstance(obj, WorkflowRun):
        return (*_fired(obj), *_of_run(obj))
    return ()


def _of_package(package: CloacinaPackage) -> tuple[Event, ...]:
    """Ready with each archive that becomes active; not ready with each new reason."""
    ready = find(package.status.conditions, PackageCondition.READY)
    if ready is None or ready.reason in _ON_THE_WAY:
        return ()
    active, candidate = package.status.active, package.status.candidate
    if ready.status is ConditionStatus.TRUE:
        digest, since = ("", _NEVER) if active is None else (active.digest, active.since)
        at = max(ready.last_transition_time, since)
        return (_of(package, ready.reason, ready.message, at=at, identity=f"{_since(ready)} {digest}"),)
    refused = "" if candidate is None else candidate.digest or ""
    at = ready.last_transition_time if candidate is None else max(ready.last_transition_time, candidate.since)
    identity = f"{_since(ready)} {ready.observed_generation} {refused}"
    warning = ready.reason != PackageReason.SUSPENDED
    return (_of(package, ready.reason, ready.message, at=at, identity=identity, warning=warning),)


def _of_trigger(trigger: Trigger) -> tuple[Event, ...]:
    conditions, said = trigger.status.conditions, []
    ready = find(conditions, TriggerCondition.READY)
    if ready is not None and ready.status is ConditionStatus.FALSE and ready.reason not in _NOT_YET:
        identity = f"{_since(ready)} {ready.observed_generation}"
        said.append(
            _of(trigger, ready.reason, ready.message, at=ready.last_transition_time, identity=identity, warning=True)
        )
    polling = find(conditions, TriggerCondition.POLLING)
    if polling is not None and (polling.status is ConditionStatus.TRUE or polling.reason == TriggerReason.SUSPENDED):
        identity = str(polling.observed_generation)  # not with each start of the poller
        said.append(_of(trigger, polling.reason, polling.message, at=polling.last_transition_time, identity=identity))
    degraded = find(conditions, TriggerCondition.DEGRADED)
    if degraded is not None and degraded.reason != TriggerReason.HEALTHY:
        at, warning = degraded.last_transition_time, degraded.status is ConditionStatus.TRUE
        said.append(_of(trigger, degraded.reason, degraded.message, at=at, identity=_since(degraded), warning=warning))
    newest = trigger.status.ticks[0] if trigger.status.ticks else None
    if newest is not None and newest.outcome in (TickOutcome.BLOCKED, TickOutcome.DEDUPLICATED):
        outcome = newest.outcome.value
        said.append(_of(trigger, outcome, newest.reason, at=newest.time, identity=newest.reason, again=True))
    return tuple(said)


def _fired(run: WorkflowRun) -> tuple[Event, ...]:
    """That the trigger made the run, told of the trigger. One that was only submitted again fired before."""
    by = run.spec.trigger_ref
    if by is None or run.status.phase is RunPhase.DEDUPLICATED:
        return ()
    key = "" if run.spec.key is None else f" for key {run.spec.key[:200]!r}"
    about = Ref(Trigger.KIND, run.metadata.namespace, by.name)
    at = run.metadata.creation_timestamp or _NEVER
    return (
        Event(about=about, uid=by.uid, reason=FIRED, note=f"run {run.name}{key}", at=at, identity=run.metadata.uid),
    )


def _of_run(run: WorkflowRun) -> tuple[Event, ...]:
    """Its end, and before that what goes wrong. That it began, its Job says, and its conditions."""
    status = run.status
    if status.phase.finished:
        ready = find(status.conditions, RunCondition.READY)
        reason = status.phase.value if ready is None else ready.reason
        at = status.finished_at or _NEVER
        warning = status.phase is RunPhase.FAILED
        return (_of(run, reason, _end(run), at=at, identity=status.phase.value, warning=warning),)
    started = find(status.conditions, RunCondition.STARTED)
    if started is None or started.status is not ConditionStatus.FALSE or started.reason in _IN_LINE:
        return ()
    at, identity = started.last_transition_time, f"{status.attempt} {status.failures}"
    return (_of(run, started.reason, started.message, at=at, identity=identity, warning=True),)


def _end(run: WorkflowRun) -> str:
    status = run.status
    if status.phase is not RunPhase.COMPLETED:
        return status.message or status.phase.value.lower()
    if status.started_at is None or status.finished_at is None:
        return "completed"
    seconds = (status.finished_at - status.started_at).total_seconds()
    attempts = "" if status.attempt <= 1 else f", with attempt {status.attempt}"
    return f"completed in {seconds:.1f} s{attempts}"


def _of(
    obj: Resource[Any, Any],
    reason: str,
    note: str,
    *,
    at: datetime,
    identity: str,
    warning: bool = False,
    again: bool = False,
) -> Event:
    return Event(
        about=obj.ref,
        uid=obj.metadata.uid,
        reason=str(reason),
        note=note or str(reason),
        at=at,
        identity=identity,
        warning=warning,
        again=again,
    )


def _since(condition: Condition) -> str:
    return rfc3339(condition.last_transition_time)
