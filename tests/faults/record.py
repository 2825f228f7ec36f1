"""What is seen from outside: what functions fired, which runs were made of it, what tasks did, what broke a promise."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from faults.processes import Process

from cloaca.resources import ConcurrencyPolicy, Ref, RunPhase, TaskPhase, Trigger, WorkflowRun

RECENT = 2.0  # seconds that a stale read may be behind


@dataclass
class Said:
    """One fire, as a function gave it."""

    fire: str  # what tells it from all others; for a fire with a key the key
    key: str | None
    context: dict[str, Any]
    poller: Process
    last: bool = True  # its poller called no function of the trigger afterwards


@dataclass
class Made:
    """One run that was made."""

    run: WorkflowRun
    phase: RunPhase = RunPhase.PENDING
    begun: bool = False  # a task of it has started
    collected: bool = False  # it was deleted
    durable: set[str] = field(default_factory=set)  # tasks whose completion is recorded
    starts: list[str] = field(default_factory=list)

    @property
    def fire(self) -> str:
        """What it was made for: what a function fired, or the time of a schedule."""
        context = self.run.spec.context
        return str(context.get("fire", context.get("scheduled_time")))


class Record:
    """Append-only. Outlives every process; what a dead one says does not get in."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.said: list[Said] = []
        self.made: dict[str, Made] = {}  # by uid
        self.pending: dict[str, set[str]] = {}  # trigger -> fires of its intent
        self.policy: dict[str, ConcurrencyPolicy] = {}  # by uid of the trigger
        self.handed: list[str] = []  # what the code after a yield was done for
        self.writes: list[tuple[float, Ref]] = []
        self.claims = 0  # by pollers, before they poll
        self._known: dict[Ref, Any] = {}  # objects as last written
        self._before: dict[Ref, tuple[float, Any]] = {}
        self._last: Ref | None = None
        self.stalled = 0  # processes that were taken for dead and are about to go on

    # --- the store

    def wrote(self, ref: Ref, after: Any) -> bool:
        """A write of ``ref`` was applied; ``after``: what it is now, None: nothing. Returns whether that is news."""
        before = self._known.get(ref)
        if after is None:
            self._known.pop(ref, None)
            if isinstance(before, WorkflowRun):
                self.made[before.metadata.uid].collected = True
        elif before is not None and int(before.metadata.resource_version) >= int(after.metadata.resource_version):
            return False  # nothing was to be written, or a later one was heard of first
        else:
            self._known[ref] = after
        now = asyncio.get_running_loop().time()
        self.writes.append((now, ref))
        self._before[ref], self._last = (now, before), ref
        if isinstance(after, WorkflowRun):
            self._wrote_run(after)
        elif isinstance(after, Trigger):
            self._wrote_trigger(after)
            self.claims += before is None or before.status.poller != after.status.poller
        return True

    def before(self, ref: Ref, now: Any) -> Any:
        """``ref`` as it was before its last write, where that was a moment ago."""
        time, before = self._before.get(ref, (float("-inf"), None))
        return before if asyncio.get_running_loop().time() - time <= RECENT else now

    def list_before(self, now: Any) -> Any:
        """The list as it was before the last write."""
        if self._last is None:
            return now
        before = self.before(self._last, None)
        others = [obj for obj in now if obj.ref != self._last]
        if len(others) == len(now):
            return now
        return tuple(others if before is None else [*others, before])

    def _wrote_run(self, run: WorkflowRun) -> None:
        made = self.made.setdefault(run.metadata.uid, Made(run))
        if made.phase.finished and run.status.phase is not made.phase:
            self.broken.append(f"run {run.name}: {made.phase.value} became {run.status.phase.value}")
        made.phase = run.status.phase
        made.durable |= {task.id for task in run.status.tasks if task.phase is TaskPhase.COMPLETED}

    def _wrote_trigger(self, trigger: Trigger) -> None:
        if trigger.status.effective is not None:
            self.policy[trigger.metadata.uid] = trigger.status.effective.concurrency_policy
        pending = trigger.status.pending
        self.pending[trigger.name] = set() if pending is None else {fire.context["fire"] for fire in pending.fires}
        ran = {made.fire for made in self.made.values()}
        ahead = [n for n in range(trigger.status.state.get("n", 0)) if f"n-{n}" not in ran]
        if ahead:
            self.broken.append(f"state of {trigger.name} is ahead of its fires: {ahead} have no run")

    def fires_durable(self) -> set[str]:
        """Fires that have a run, or are in an intent."""
        ran = {made.fire for made in self.made.values()}
        return ran.union(*self.pending.values())

    # --- user code

    def called(self, poller: Process) -> None:
        """A function is called: what the same poller got before is recorded, or lost."""
        for said in self.said:
            if said.poller is poller:
                said.last = False

    def after_yield(self, fire: str) -> None:
        """The code after a ``yield`` runs."""
        if fire not in self.fires_durable():
            self.broken.append(f"the code after the yield of {fire} ran, and its fire is not durable")
        self.handed.append(fire)

    def task_starts(self, uid: str, task: str, context: dict[str, Any], version: str) -> None:
        """A task starts, in the process of a run."""
        made = self.made[uid]
        run, given = made.run, made.run.spec.context
        if task in made.durable:
            self.broken.append(f"run {run.name}: task {task} started again after its completion was recorded")
        if made.phase.finished:
            self.broken.append(f"run {run.name}: task {task} started though the run is {made.phase.value}")
        if {key: context.get(key) for key in given} != given:
            self.broken.append(f"run {run.name}: task {task} got {context}, fired was {given}")
        if context.get("version", version) != version:
            self.broken.append(f"run {run.name}: fired by version {context['version']}, run by {version}")
        made.begun = True
        made.starts.append(task)
        if run.spec.trigger_ref is None:
            return
        trigger = run.spec.trigger_ref.uid
        if self.policy.get(trigger) is ConcurrencyPolicy.ALLOW:
            return
        for other in self.made.values():
            ref = other.run.spec.trigger_ref
            of_it = ref is not None and ref.uid == trigger and other is not made
            if of_it and other.begun and not other.phase.finished:
                self.broken.append(f"runs {run.name} and {other.run.name} overlap")

    def _came_late(self, fire: str, runs: list[Made]) -> bool:
        """Whether a poller that was given up and then stood still made a run anew that had ended and was collected."""
        again = all(made.run.name == runs[0].run.name and made.collected for made in runs[:-1])
        return again and any(said.poller.given_up for said in self.said if said.fire == fire)

    # --- the end

    def settle(self, *, gone: bool) -> list[str]:
        """Everything that is broken, once nothing happens any more. ``gone``: the package was deleted."""
        by_fire: dict[str, list[Made]] = defaultdict(list)
        by_key: dict[tuple[str, str], list[Made]] = defaultdict(list)
        for made in self.made.values():
            by_fire[made.fire].append(made)
            if made.run.spec.key is not None and made.run.spec.trigger_ref is not None:
                by_key[made.run.spec.trigger_ref.uid, made.run.spec.key].append(made)
        broken = list(self.broken)
        for (_, key), runs in by_key.items():
            ran = [made.run.name for made in runs if made.begun or made.phase is not RunPhase.DEDUPLICATED]
            if len(ran) > 1:
                broken.append(f"key {key} gave {len(ran)} runs: {', '.join(ran)}")
        for fire, runs in by_fire.items():
            if len(runs) > 1 and runs[0].run.spec.key is None and not self._came_late(fire, runs):
                broken.append(f"fire {fire} gave {len(runs)} runs: {', '.join(made.run.name for made in runs)}")
        said: dict[str, list[Said]] = defaultdict(list)
        for one in self.said:
            said[one.fire].append(one)
        for fire, ones in said.items():
            last = ones[-1]
            dead = not last.poller.alive or last.poller.given_up
            lost_rightly = dead and last.last and last.key is None
            if fire not in by_fire and not lost_rightly and not gone:
                broken.append(f"fire {fire} was lost")
            if fire in by_fire and all(by_fire[fire][0].run.spec.context != one.context for one in ones):
                broken.append(f"fire {fire} fired {last.context}, its run has {by_fire[fire][0].run.spec.context}")
        return broken
