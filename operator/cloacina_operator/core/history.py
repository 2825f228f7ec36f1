"""Decide which finished runs of a trigger are collected, and when to look again. Pure: no I/O, no clock, no logging."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cloaca.resources import RunPhase, Trigger
from cloaca.resources.names import tick_of


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """A run that has ended, as far as its collection is concerned."""

    name: str
    uid: str
    phase: RunPhase
    finished_at: datetime
    ttl: timedelta | None = None  # None: the limits alone decide
    key: str | None = None
    fire_id: str | None = None
    package: str | None = None


def to_collect(
    trigger: Trigger, finished: Sequence[FinishedRun], now: datetime
) -> tuple[tuple[FinishedRun, ...], timedelta | None]:
    """(runs to collect, oldest first; when the next one is due, None: when something changes)."""
    spec = trigger.spec
    completed = [run for run in finished if run.phase is RunPhase.COMPLETED]
    repeated = [run for run in finished if run.phase is RunPhase.DEDUPLICATED]
    failed = [run for run in finished if run.phase not in (RunPhase.COMPLETED, RunPhase.DEDUPLICATED)]
    surplus = {
        run.name
        for group, limit in (
            (completed, spec.successful_runs_history_limit),
            (failed, spec.failed_runs_history_limit),
            (repeated, spec.failed_runs_history_limit),
        )
        for run in _oldest_first(group)[: max(0, len(group) - limit)]
    }
    settled = [run for run in _oldest_first(finished) if _is_settled(trigger, run)]
    due = tuple(run for run in settled if run.name in surplus or _left(run, now) == timedelta(0))
    waiting = [left for run in settled if run not in due and (left := _left(run, now)) is not None]
    return due, min(waiting, default=None)


def _is_settled(trigger: Trigger, run: FinishedRun) -> bool:
    """Whether nobody can submit the same fire again: then a run that is gone comes back under no circumstances.

    A fire is settled when its tick is committed. Until then its poller, or the next one, may create the run once more;
    while it exists that changes nothing. With a key the ledger would stop the second one; it still waits, so that what
    the poller reports stays true.
    """
    status = trigger.status
    if status.pending is not None and run.fire_id in {fire.fire_id for fire in status.pending.fires}:
        return False
    if run.key is not None:
        return True
    tick = tick_of(trigger.name, run.name)
    return tick is None or tick <= status.sequence


def _oldest_first(runs: Iterable[FinishedRun]) -> list[FinishedRun]:
    return sorted(runs, key=lambda run: (run.finished_at, run.name))


def _left(run: FinishedRun, now: datetime) -> timedelta | None:
    return None if run.ttl is None else max(timedelta(0), run.finished_at + run.ttl - now)
