"""What a poller knows of one trigger. Reads and writes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from cloaca.polling.ledger import FiredKeys
from cloaca.polling.repeats import Repeats
from cloaca.polling.tick import fired_by
from cloaca.resources.names import tick_run_name
from cloaca.resources.run import WorkflowRun
from cloaca.resources.trigger import Tick, Trigger, TriggerStatus


@dataclass
class Entry:
    """What the poller knows of one trigger."""

    trigger: Trigger  # as last seen in the store
    status: TriggerStatus  # with our half ahead of the store's by what is not written yet
    fired: FiredKeys  # a stale view does no harm: the operator looks again before it starts a run
    active: set[str] = field(default_factory=set)  # unfinished runs
    repeats: Repeats = field(default_factory=Repeats)
    unwritten: list[Tick] = field(default_factory=list)
    written_at: float = float("-inf")
    timer: asyncio.TimerHandle | None = None
    polling: asyncio.Task[None] | None = None
    blocked: bool = False  # a poll came due while a run was active
    ours: bool = False  # the store says that it is this poller which polls it

    @property
    def name(self) -> str:
        """Of the Trigger."""
        return self.trigger.name


def resumed_status(trigger: Trigger, runs: tuple[WorkflowRun, ...]) -> TriggerStatus:
    """The status to go on from: its number moves past runs that a poller made just before it died."""
    names = {run.name for run in runs if fired_by(run, trigger)}
    sequence = trigger.status.sequence
    while tick_run_name(trigger.name, sequence + 1) in names:
        sequence += 1
    return trigger.status.model_copy(update={"sequence": sequence})


def timing(trigger: Trigger) -> tuple[object, ...]:
    """What, when it changes, makes a new plan."""
    effective = trigger.status.effective
    settings = None if effective is None else (effective.digest, effective.poll_interval, effective.concurrency_policy)
    return settings, trigger.spec.suspend, trigger.spec.schedule
