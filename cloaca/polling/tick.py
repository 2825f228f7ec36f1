"""One tick of a trigger: what is recorded before its runs are made, which runs, what is recorded after. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cloaca.errors import CloacaError
from cloaca.failure import last_lines, plain_text
from cloaca.polling.messages import Fire
from cloaca.resources.meta import ObjectMeta, owned_by
from cloaca.resources.names import keyed_run_name, manual_run_name, run_labels, tick_run_name
from cloaca.resources.package import RunDefaults
from cloaca.resources.run import RunSpec, TriggerReference, WorkflowRun
from cloaca.resources.trigger import FireIntent, PendingTick, Tick, TickOutcome, Trigger, TriggerStatus

TICKS_KEPT = 20
REASON_LIMIT = 1_000  # characters of a tick's reason
ERROR_LIMIT = 4_096  # characters of lastError
INTENT_LIMIT = 500 * 1024
"""Bytes of JSON of the fires that are recorded before their runs are made: the object that holds them, which holds the
trigger's state as well, must stay below the 1.5 MiB that etcd takes."""
_INTENT_OVERHEAD = 200  # bytes of a fire's names and punctuation


class AnswerTooLarge(CloacaError):
    """One answer of a trigger function has more fires than can be recorded at once."""


def intend(
    trigger: Trigger, fires: Sequence[Fire], state: dict[str, Any] | None, fire_ids: Sequence[str]
) -> PendingTick:
    """The record of a tick with ``fires``, made before any of its runs: whoever comes next can finish it from that.

    ``state`` is what the function's state becomes with it (None: it keeps none); ``fire_ids`` are unique, one a fire.
    The trigger must have effective settings.
    """
    effective = trigger.status.effective
    if effective is None:
        raise ValueError(f"{trigger.ref} has no effective settings, so nothing can be fired")
    tick = trigger.status.sequence + 1
    return PendingTick(
        tick=tick,
        digest=effective.digest,
        workflow=effective.workflow,
        fires=tuple(
            FireIntent(
                name=_run_name(trigger, fire, tick, index if len(fires) > 1 else None),
                fire_id=fire_id,
                key=fire.key,
                context=fire.context,
            )
            for index, (fire, fire_id) in enumerate(zip(fires, fire_ids, strict=True))
        ),
        state=state,
    )


def batches(fires: Sequence[Fire]) -> list[tuple[Fire, ...]]:
    """``fires`` in their order, in as few parts as can each be recorded at once.

    Raises AnswerTooLarge if there is more than one part and some fire has no key: a crash between two parts has the
    function called again, and only a key tells what fired before from what did not.
    """
    parts: list[list[Fire]] = []
    size = total = 0
    for fire in fires:
        bytes_of = _INTENT_OVERHEAD + len(fire.key or "") + len(json.dumps(fire.context))
        total += bytes_of
        if not parts or size + bytes_of > INTENT_LIMIT:
            parts.append([])
            size = 0
        parts[-1].append(fire)
        size += bytes_of
    if len(parts) > 1 and any(fire.key is None for fire in fires):
        raise AnswerTooLarge(
            f"the answer has {len(fires):,} fires of {total:,} bytes together, and fires without keys are recorded at "
            f"once, at most {INTENT_LIMIT:,} bytes: give each of them a key, or yield them one by one"
        )
    return [tuple(part) for part in parts] or [()]


def _run_name(trigger: Trigger, fire: Fire, tick: int, index: int | None) -> str:
    if fire.key is not None:
        return keyed_run_name(trigger.name, trigger.metadata.uid, fire.key)
    return tick_run_name(trigger.name, tick, index)


def needs_record(pending: PendingTick) -> bool:
    """Whether the tick must be recorded before its runs: not for a single fire without state, whose run says it all."""
    return len(pending.fires) != 1 or pending.state is not None


def run_of(trigger: Trigger, pending: PendingTick, fire: FireIntent, defaults: RunDefaults) -> WorkflowRun:
    """The run that ``fire`` makes: owned by the trigger, pinned to the archive whose function fired."""
    package = trigger.spec.package_ref
    return WorkflowRun(
        metadata=ObjectMeta(
            name=fire.name,
            namespace=trigger.metadata.namespace,
            labels=run_labels(package.name, trigger.name, pending.workflow),
            owner_references=(owned_by(trigger),),
        ),
        spec=RunSpec(
            workflow=pending.workflow,
            package_ref=package,
            digest=pending.digest,
            context=fire.context,
            trigger_ref=TriggerReference(name=trigger.name, uid=trigger.metadata.uid),
            key=fire.key,
            fire_id=fire.fire_id,
            backoff_limit=defaults.backoff_limit,
            active_deadline_seconds=defaults.active_deadline_seconds,
            ttl_seconds_after_finished=defaults.ttl_seconds_after_finished,
        ),
    )


def fired_by(run: WorkflowRun, trigger: Trigger) -> bool:
    """Whether ``run`` is one of ``trigger``. One of another package is not, whatever trigger it names."""
    by = run.spec.trigger_ref
    return by is not None and by.uid == trigger.metadata.uid and run.spec.package_ref == trigger.spec.package_ref


def same_fire(existing: WorkflowRun, trigger: Trigger, fire: FireIntent) -> bool:
    """Whether the run under that name is this fire's own: a submission that had been applied, though nobody heard."""
    return existing.spec.fire_id == fire.fire_id and fired_by(existing, trigger)


def is_taken(existing: WorkflowRun, trigger: Trigger, fire: FireIntent) -> bool:
    """Whether a run of something else has the name of ``fire``: another trigger's, one of a trigger that had the name
    before, or one of another package. Then the fire takes ``second_name``; it is no repetition."""
    if not fired_by(existing, trigger) or existing.spec.key != fire.key:
        return True
    return fire.key is None  # without a key no two fires are the same, whatever their runs are called


def second_name(trigger: Trigger, fire: FireIntent) -> FireIntent:
    """``fire`` under a name that nothing else can have: every try of the same fire finds the same one."""
    return fire.model_copy(update={"name": manual_run_name(trigger.name, fire.fire_id[:12])})


def fired_tick(*, time: datetime, duration: float, submitted: Sequence[str], duplicates: Sequence[str]) -> Tick:
    """How a tick with fires ended: names of the runs that it made, and of those that existed before."""
    if submitted:
        reason = f"{len(duplicates)} of the fires had run before" if duplicates else ""
        outcome = TickOutcome.FIRED
    else:
        outcome, reason = TickOutcome.DEDUPLICATED, _repeated(duplicates[0])
    return Tick(
        time=time, duration_ms=_milliseconds(duration), outcome=outcome, reason=reason, runs=tuple(submitted)[:100]
    )


def ended_tick(
    *, time: datetime, duration: float, submitted: Sequence[str], duplicates: Sequence[str], reason: str
) -> Tick:
    """How a poll ended well: as ``fired_tick`` where it had fires, else skipped for ``reason``."""
    if submitted or duplicates:
        return fired_tick(time=time, duration=duration, submitted=submitted, duplicates=duplicates)
    return skipped_tick(time=time, duration=duration, reason=reason)


def is_news(tick: Tick, before: Sequence[Tick]) -> bool:
    """Whether ``tick`` is to be recorded at once. ``before``: what was, newest first.

    What found nothing, or again what it had found (and perhaps fired) the time before, can wait: a trigger that looks
    into a folder finds the same files at each poll.
    """
    if not before or tick.outcome is TickOutcome.FIRED:
        return True
    last = before[0]
    told = {last.reason} if last.outcome is TickOutcome.DEDUPLICATED else set(map(_repeated, last.runs))
    return tick.outcome is TickOutcome.DEDUPLICATED and tick.reason not in told


def _repeated(run: str) -> str:
    return f"key fired before: run {run}"


def skipped_tick(*, time: datetime, duration: float, reason: str) -> Tick:
    """A poll that found nothing to do."""
    reason = reason[:REASON_LIMIT]
    return Tick(time=time, duration_ms=_milliseconds(duration), outcome=TickOutcome.SKIPPED, reason=reason)


def error_tick(*, time: datetime, duration: float, error: str) -> Tick:
    """A poll that failed."""
    return Tick(time=time, duration_ms=_milliseconds(duration), outcome=TickOutcome.ERROR, reason=error[:REASON_LIMIT])


def blocked_tick(*, time: datetime, run: str) -> Tick:
    """A poll that was put off because ``run`` is active."""
    return Tick(time=time, outcome=TickOutcome.BLOCKED, reason=f"run {run} is active")


def committed(status: TriggerStatus, pending: PendingTick, *, now: datetime, submitted: Sequence[str]) -> TriggerStatus:
    """``status`` once every run of ``pending`` exists: the state that belongs to it, its number, nothing pending."""
    changes: dict[str, Any] = {"sequence": max(status.sequence, pending.tick), "pending": None}
    if pending.state is not None:
        changes["state"] = pending.state
    if submitted:
        changes |= {"last_run": submitted[-1], "last_fire_time": now}
    return status.model_copy(update=changes)


def with_ticks(status: TriggerStatus, ticks: Sequence[Tick]) -> TriggerStatus:
    """``status`` with ``ticks`` (oldest first) in front of those it has; the newest 20 stay."""
    if not ticks:
        return status
    polled = [tick.time for tick in ticks if tick.outcome is not TickOutcome.BLOCKED]
    changes: dict[str, Any] = {"ticks": (*reversed(ticks), *status.ticks)[:TICKS_KEPT]}
    if polled:
        changes["last_poll_time"] = polled[-1]
    return status.model_copy(update=changes)


def after_success(status: TriggerStatus) -> TriggerStatus:
    """``status`` after a poll that ended well: mostly the very same."""
    if not status.consecutive_errors and status.last_error is None:
        return status
    return status.model_copy(update={"consecutive_errors": 0, "last_error": None})


def error_text(message: str, traceback: str | None) -> str:
    """What is told of a poll that failed: its error first, then the end of the traceback, as far as there is room."""
    error = plain_text(message, REASON_LIMIT)
    return error if traceback is None else f"{error}\n{last_lines(traceback, ERROR_LIMIT - len(error) - 1)}"


def after_error(status: TriggerStatus, error: str) -> TriggerStatus:
    """``status`` after a poll that failed with ``error``, an ``error_text``."""
    return status.model_copy(update={"consecutive_errors": status.consecutive_errors + 1, "last_error": error})


def poll_half(ours: TriggerStatus, theirs: TriggerStatus) -> TriggerStatus:
    """``theirs`` (what the operator wrote meanwhile) with the poller's fields as in ``ours``."""
    return theirs.model_copy(update={name: getattr(ours, name) for name in _POLL_FIELDS})


def taken_over(ours: TriggerStatus, theirs: TriggerStatus) -> TriggerStatus:
    """What to go on from where another poller has recorded ``theirs`` since ``ours`` was read."""
    kept = {"sequence": max(ours.sequence, theirs.sequence), "next_poll_time": ours.next_poll_time}
    return theirs.model_copy(update=kept)


def is_replaced(ours: TriggerStatus, theirs: TriggerStatus) -> bool:
    """Whether ``theirs`` says that another poller polls it now. An answer that is old says nothing."""
    return theirs.poller > ours.poller


_POLL_FIELDS = (
    "last_poll_time",
    "last_fire_time",
    "next_poll_time",
    "last_run",
    "poller",
    "sequence",
    "pending",
    "consecutive_errors",
    "last_error",
    "state",
    "ticks",
)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
