"""What must be known of other objects to decide about one: who belongs to whom, which runs go on, which have ended.

Fed by the store's changes. Keeps of a trigger what others ask about it, and of a finished run what its collection
needs, no more: there may be thousands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from cloaca.errors import Unreadable
from cloaca.resources import CloacinaPackage, Ref, Resource, RunPhase, Trigger, WorkflowRun
from cloaca.resources.names import trigger_object_name
from cloaca.store import Store
from cloaca.store.base import Change
from cloaca.store.oddities import Oddities, Stage
from cloacina_operator.core.backlog import Backlog, Fired, Turn
from cloacina_operator.core.history import FinishedRun
from cloacina_operator.core.packages import TakenName
from cloacina_operator.core.runs import Sibling, ended

R = TypeVar("R", bound=Resource[Any, Any])
Seen = Callable[[Ref, "Resource[Any, Any] | None"], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownTrigger:
    """A trigger, as it was when it last changed."""

    ref: Ref
    uid: str
    package: Ref
    function: str
    created: datetime
    overlap: tuple[object, ...]  # what says whether its runs may
    consecutive_errors: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unfinished:
    """An unfinished run."""

    ref: Ref
    uid: str
    package: str | None
    trigger_uid: str | None
    trigger: str | None
    created: datetime
    started: bool  # it has had a process: its turn has come, though it may wait for the next one
    waiting: bool  # it has no process now

    @property
    def fired(self) -> Fired | None:
        """In whose queue it stands; None: no trigger fired it."""
        if self.trigger_uid is None:
            return None
        return Fired(namespace=self.ref.namespace, trigger_uid=self.trigger_uid, package=self.package)

    @property
    def turn(self) -> Turn:
        """Its place there."""
        return Turn(created=self.created, name=self.ref.name)


class Index:
    """Unfinished runs and triggers, by whom they belong to."""

    def __init__(
        self,
        store: Store,
        on_end: Callable[[WorkflowRun], None] | None = None,
        seen: Seen | None = None,
        *,
        oddities: Oddities | None = None,
        counted_until: datetime | None = None,
    ) -> None:
        """``on_end`` is called once for each run that has ended, also if it was never seen before its end; ``seen``
        with each object as it is when it is read (None: it is gone). ``oddities``: those of ``store``.

        ``counted_until``: of the runs that have ended before the first look, ``on_end`` is called for those that ended
        after this time; None: for none of them.
        """
        self._oddities = oddities or Oddities()
        self._store = store
        self._on_end = on_end
        self._seen = seen
        self._counted_until = counted_until
        self._finished: dict[Ref, str] = {}  # uids of finished runs that were counted, or need not be
        self._loaded = False  # whether everything was read once
        self._one_look = asyncio.Lock()  # what is heard of while everything is read is newer than what was read
        self._runs: dict[Ref, _Unfinished] = {}
        self._backlog = Backlog()  # the same runs, by the trigger that fired them
        self._touched: set[Ref] = set()  # of which an executor told: they may have a process
        self._ended: dict[str, dict[Ref, FinishedRun]] = {}  # trigger uid -> its finished runs
        self._triggers: dict[Ref, KnownTrigger] = {}
        self._triggers_of: dict[Ref, dict[Ref, KnownTrigger]] = {}  # by package
        self._packages: dict[Ref, bool] = {}  # whether it is there, as last heard
        self._needed: dict[Ref, tuple[Ref, ...]] = {}  # package -> the Trigger objects that it is to have
        self._needed_by: dict[Ref, set[Ref]] = {}  # the other way round: two packages may need one name
        self._begun: set[str] = set()  # uids of unfinished runs that we tried to start

    async def load(self) -> list[Ref]:
        """Read everything afresh; returns what there is to look at: all but the finished runs that a trigger keeps, and
        what is gone or finished since it was last read or heard of: nobody may have told."""
        async with self._one_look:
            return await self._load()

    async def _load(self) -> list[Ref]:
        runs = await self._store.each(WorkflowRun)
        triggers = await self._store.each(Trigger)
        packages = await self._store.each(CloacinaPackage)
        before = dict.fromkeys([*self._packages, *self._triggers, *self._runs])
        gone = dict(before)

        def read(objects: Iterator[R], take: Callable[[R], None]) -> None:
            for obj in objects:
                gone.pop(obj.ref, None)
                with self._oddities.guard(obj.ref, Stage.WATCH, obj.metadata.uid):
                    if self._seen is not None:
                        self._seen(obj.ref, obj)
                    take(obj)

        there: dict[Ref, bool] = {}
        known: list[KnownTrigger] = []
        unfinished: dict[Ref, _Unfinished] = {}
        finished: dict[str, dict[Ref, FinishedRun]] = {}
        alone: list[Ref] = []
        passed_on: set[Ref] = set()

        def take_run(run: WorkflowRun) -> None:
            if not run.status.phase.finished:
                unfinished[run.ref] = _unfinished(run)
                return
            _keep(finished, run)
            self._pass_on(run)
            passed_on.add(run.ref)
            if run.spec.ttl_seconds_after_finished is not None:
                alone.append(run.ref)

        read(packages, lambda package: there.update({package.ref: True}))
        read(triggers, lambda trigger: known.append(_known(trigger)))
        read(runs, take_run)
        self._runs, self._ended, self._backlog = unfinished, finished, Backlog()
        for known_run in unfinished.values():
            self._enqueue(known_run)
        self._finished = {ref: uid for ref, uid in self._finished.items() if ref in passed_on}
        self._loaded = True
        self._begun &= {run.uid for run in unfinished.values()}
        self._triggers, self._triggers_of = {}, {}
        for trigger in known:
            self._add(trigger)
        there.update((ref, True) for ref in self._packages if self._oddities.unreadable(ref))
        no_more = dict.fromkeys((ref for ref, was_there in self._packages.items() if was_there), False)
        self._packages = {**no_more, **there}
        if self._seen is not None:
            for ref in gone:
                self._seen(ref, None)
        present = dict.fromkeys([*there, *self._triggers, *self._runs, *alone])
        return [*present, *(ref for ref in before if ref not in present)]

    def _pass_on(self, run: WorkflowRun) -> None:
        """Call ``on_end`` for a run that has ended, unless that was done before or a process before this one did."""
        uid = run.metadata.uid
        if self._on_end is None or self._finished.get(run.ref) == uid:
            return
        self._finished[run.ref] = uid
        before, at, until = self._runs.get(run.ref), run.status.finished_at, self._counted_until
        is_new = self._loaded or (before is not None and before.uid == uid)
        if is_new or (at is not None and until is not None and at > until):
            self._on_end(run)

    async def saw(self, change: Change) -> list[Ref]:
        """Take note of a change, and return all whose decision may be another one now."""
        async with self._one_look:
            if change.deleted:
                self._oddities.gone(change.ref)
            with self._oddities.guard(change.ref, Stage.WATCH):
                return await self._saw(change)
            return [change.ref]

    async def _saw(self, change: Change) -> list[Ref]:
        ref = change.ref
        if ref.kind == WorkflowRun.KIND:
            return self._saw_run(ref, await self._read(WorkflowRun, change))
        if ref.kind == Trigger.KIND:
            return self._saw_trigger(ref, await self._read(Trigger, change))
        if ref.kind != CloacinaPackage.KIND:
            return []
        self._packages[ref] = not change.deleted  # where it is gone, the next look at everything says so once more
        if change.deleted:
            self._need_names(ref, ())
        if self._seen is not None:
            await self._read(CloacinaPackage, change)
        affected = [ref]
        affected += self._triggers_of.get(ref, ())
        affected += [run.ref for run in self._runs.values() if _is_of(run, ref) and run.waiting]
        return affected

    async def _read(self, kind: type[R], change: Change) -> R | None:
        """The object that changed. One that is said to be there and is not found is read once more: the answer may be
        older than the change, and a run that is overlooked lets another one of its trigger start beside it."""
        found = await self._look(kind, change.ref)
        if found is None and not change.deleted:
            found = await self._look(kind, change.ref)
        if self._seen is not None:
            self._seen(change.ref, found)
        return found

    async def _look(self, kind: type[R], ref: Ref) -> R | None:
        """The object; None: it is not there, or cannot be read, and so counts for no other object."""
        try:
            return await self._store.get(kind, ref.name, ref.namespace)
        except Unreadable:
            return None

    def _saw_run(self, ref: Ref, run: WorkflowRun | None) -> list[Ref]:
        if run is None:
            self._finished.pop(ref, None)
        elif run.status.phase.finished:
            self._pass_on(run)
        before = self._runs.pop(ref, None)
        if before is not None and before.fired is not None:
            self._backlog.remove(before.fired, before.turn)
        if before is not None and (run is None or run.status.phase.finished or run.metadata.uid != before.uid):
            self._begun.discard(before.uid)
        if run is None:
            for kept in self._ended.values():
                kept.pop(ref, None)
        elif run.status.phase.finished:
            _keep(self._ended, run)
        if run is not None and not run.status.phase.finished:
            after = self._runs[ref] = _unfinished(run)
            self._enqueue(after)
            if before is not None:
                return [ref]
            return [ref] if after.trigger is None else [ref, Ref(Trigger.KIND, ref.namespace, after.trigger)]
        if before is None:
            by = None if run is None else run.spec.trigger_ref
            return [ref] if by is None else [ref, Ref(Trigger.KIND, ref.namespace, by.name)]
        affected = [ref, *self._next_after(before)]
        if before.trigger is not None:
            affected.append(Ref(Trigger.KIND, ref.namespace, before.trigger))
        return affected

    def _saw_trigger(self, ref: Ref, trigger: Trigger | None) -> list[Ref]:
        before, after = self._remove(ref), None if trigger is None else _known(trigger)
        affected = [ref]
        if before is not None and (after is None or after.uid != before.uid):
            self._ended.pop(before.uid, None)
        if after is not None:
            self._add(after)
        if before is None or after is None:  # twins, and the package that looks which triggers there are
            known = after or before
            if known is not None:
                affected += [it for it in self._needed_by.get(ref, ()) if it != known.package]
                affected += [run.ref for run in self._runs.values() if run.trigger_uid == known.uid and run.waiting]
                affected += [known.package, *(it for it in self._triggers_of.get(known.package, ()) if it != ref)]
        elif before.overlap != after.overlap:  # its runs may have to wait no longer
            affected += [run.ref for run in self._runs.values() if run.trigger_uid == after.uid and run.waiting]
        return affected

    def _add(self, trigger: KnownTrigger) -> None:
        self._triggers[trigger.ref] = trigger
        self._triggers_of.setdefault(trigger.package, {})[trigger.ref] = trigger

    def _remove(self, ref: Ref) -> KnownTrigger | None:
        trigger = self._triggers.pop(ref, None)
        if trigger is not None:
            siblings = self._triggers_of[trigger.package]
            del siblings[ref]
            if not siblings:
                del self._triggers_of[trigger.package]
        return trigger

    def uid(self, ref: Ref) -> str:
        """The uid of an unfinished run or a trigger; empty: it is not known."""
        known = self._runs.get(ref) or self._triggers.get(ref)
        return "" if known is None else known.uid

    def triggers_of(self, package: Ref) -> Collection[KnownTrigger]:
        """The Trigger objects that name the package."""
        return self._triggers_of.get(package, {}).values()

    def taken_names(self, package: CloacinaPackage) -> tuple[TakenName, ...]:
        """Trigger objects that have the names of ``package``'s own and are for something else.

        From then on the package is looked at again when a Trigger object of such a name comes or goes.
        """
        taken, needed = [], set()
        for entry in package.status.triggers:
            ref = Ref(Trigger.KIND, package.metadata.namespace, trigger_object_name(package.name, entry.name))
            needed.add(ref)
            known = self._triggers.get(ref)
            if known is not None and (known.package, known.function) != (package.ref, entry.name):
                taken.append(TakenName(object=ref.name, package=known.package.name, function=known.function))
        self._need_names(package.ref, needed)
        return tuple(taken)

    def _need_names(self, package: Ref, triggers: Collection[Ref]) -> None:
        for ref in self._needed.pop(package, ()):
            packages = self._needed_by[ref]
            packages.discard(package)
            if not packages:
                del self._needed_by[ref]
        if triggers:
            self._needed[package] = tuple(triggers)
        for ref in triggers:
            self._needed_by.setdefault(ref, set()).add(package)

    def older_twin(self, trigger: Trigger) -> str | None:
        """The name of the oldest other Trigger for the same function, if it is older than ``trigger``."""
        known = _known(trigger)
        twins = [other for other in self.triggers_of(known.package) if other.function == known.function]
        oldest = min(twins, key=_age, default=known)
        return None if _age(oldest) >= _age(known) else oldest.ref.name

    def unfinished_of(self, trigger: Trigger, limit: int) -> tuple[tuple[str, ...], int]:
        """(names of the trigger's oldest unfinished runs, at most ``limit``; how many unfinished ones it has)."""
        fired = _queue_of(trigger)
        return self._backlog.names(fired, limit), self._backlog.count(fired)

    def finished_of(self, trigger: Trigger) -> tuple[FinishedRun, ...]:
        """The trigger's finished runs."""
        uid = trigger.metadata.uid
        return tuple(run for run in self._ended.get(uid, {}).values() if _is_fired_by(uid, run.package, trigger))

    def keeps(self, run: WorkflowRun) -> bool:
        """Whether the trigger that fired ``run`` exists, or may exist: one that cannot be read keeps its runs."""
        by = run.spec.trigger_ref
        if by is not None and self._oddities.unreadable(Ref(Trigger.KIND, run.metadata.namespace, by.name)):
            return True
        trigger = self._named_by(run)
        return trigger is not None and _package_of(run) == trigger.package.name

    def owner(self, run: WorkflowRun) -> str | None:
        """The package of the trigger that ``run`` names, where it is another one than its own; None: all is well."""
        trigger = self._named_by(run)
        return None if trigger is None or trigger.package.name == _package_of(run) else trigger.package.name

    def _named_by(self, run: WorkflowRun) -> KnownTrigger | None:
        """The trigger that ``run`` says fired it, if that exists."""
        by = run.spec.trigger_ref
        trigger = None if by is None else self._triggers.get(Ref(Trigger.KIND, run.metadata.namespace, by.name))
        return trigger if by is not None and trigger is not None and trigger.uid == by.uid else None

    def expects(self, package: Ref) -> bool:
        """Whether the package is there, as last heard: who does not find it has an answer that is older."""
        return self._packages.get(package, False)

    def is_gone(self, package: Ref) -> bool:
        """Whether the package was deleted, as last heard: who finds it has an answer that is older."""
        return not self._packages.get(package, True)

    def begins(self, run: WorkflowRun) -> None:
        """Its turn has come: a process is being started for it. Whether one was, is known later; that others of its
        trigger wait for it is certain from now on."""
        self._begun.add(run.metadata.uid)
        self.may_have_process(run.ref)

    def may_have_process(self, ref: Ref) -> None:
        """An executor told of the run: from now on others of its trigger look whether it has a process."""
        self._touched.add(ref)
        run = self._runs.get(ref)
        if run is not None and run.fired is not None:
            self._backlog.mark(run.fired, run.turn)

    def has_no_process(self, ref: Ref) -> None:
        """The run has ended or is gone: nobody asks about a process of it any more."""
        self._touched.discard(ref)

    def has_begun(self, run: WorkflowRun) -> bool:
        """Whether a start of it was tried."""
        return run.metadata.uid in self._begun

    def siblings(self, run: WorkflowRun) -> tuple[Sibling, ...]:
        """The other unfinished runs of the trigger that fired ``run`` that decide whether its turn has come: all that
        may have a process, and a few of those that come before it, if any do."""
        this = _unfinished(run)
        if this.fired is None:
            return ()
        turns = self._backlog.others(this.fired, this.turn)
        refs = [Ref(run.KIND, run.metadata.namespace, turn.name) for turn in turns]
        return tuple(
            Sibling(name=other.ref.name, created=other.created, started=other.started or other.uid in self._begun)
            for other in map(self._runs.__getitem__, refs)
        )

    def package_of(self, run: Ref) -> str | None:
        """The package of an unfinished run; None: it is not known."""
        known = self._runs.get(run)
        return None if known is None else known.package

    def triggers(self) -> Collection[KnownTrigger]:
        """All Triggers."""
        return self._triggers.values()

    def count_unfinished(self) -> int:
        """How many runs have not ended."""
        return len(self._runs)

    def count_running(self) -> int:
        """How many of those have a process."""
        return sum(not run.waiting for run in self._runs.values())

    def _enqueue(self, run: _Unfinished) -> None:
        if run.fired is None:
            return
        self._backlog.add(run.fired, run.turn)
        if run.started or run.uid in self._begun or run.ref in self._touched:
            self._backlog.mark(run.fired, run.turn)

    def _next_after(self, run: _Unfinished) -> list[Ref]:
        """Whose turn may have come, now that ``run`` has ended."""
        if run.fired is None:
            return []
        turns = self._backlog.next_after(run.fired, run.turn)
        return [Ref(WorkflowRun.KIND, run.ref.namespace, turn.name) for turn in turns]


def _known(trigger: Trigger) -> KnownTrigger:
    return KnownTrigger(
        ref=trigger.ref,
        uid=trigger.metadata.uid,
        package=Ref(CloacinaPackage.KIND, trigger.metadata.namespace, trigger.spec.package_ref.name),
        function=trigger.spec.name,
        created=trigger.metadata.creation_timestamp or datetime.min.replace(tzinfo=timezone.utc),
        overlap=_overlap(trigger),
        consecutive_errors=trigger.status.consecutive_errors,
    )


def _unfinished(run: WorkflowRun) -> _Unfinished:
    trigger = run.spec.trigger_ref
    return _Unfinished(
        ref=run.ref,
        uid=run.metadata.uid,
        package=_package_of(run),
        trigger_uid=None if trigger is None else trigger.uid,
        trigger=None if trigger is None else trigger.name,
        created=run.metadata.creation_timestamp or datetime.min.replace(tzinfo=timezone.utc),
        started=run.status.attempt > 0,
        waiting=run.status.phase is RunPhase.PENDING,
    )


def _keep(finished: dict[str, dict[Ref, FinishedRun]], run: WorkflowRun) -> None:
    if run.spec.trigger_ref is not None:
        finished.setdefault(run.spec.trigger_ref.uid, {})[run.ref] = ended(run)


def _package_of(run: WorkflowRun) -> str | None:
    return None if run.spec.package_ref is None else run.spec.package_ref.name


def _overlap(trigger: Trigger) -> tuple[object, ...]:
    """What says whether its runs may overlap."""
    effective = trigger.status.effective
    spec = (trigger.spec.concurrency_policy, trigger.spec.allow_concurrent)
    return spec if effective is None else (effective.concurrency_policy,)


def _queue_of(trigger: Trigger) -> Fired:
    """The queue of the runs that the trigger fires."""
    metadata, package = trigger.metadata, trigger.spec.package_ref.name
    return Fired(namespace=metadata.namespace, trigger_uid=metadata.uid, package=package)


def _is_fired_by(uid: str | None, package: str | None, trigger: Trigger) -> bool:
    """One of another package is not, whatever trigger it names: it must not wait in that one's place, nor use its keys
    up."""
    return uid == trigger.metadata.uid and package == trigger.spec.package_ref.name


def _is_of(run: _Unfinished, package: Ref) -> bool:
    return run.package == package.name and run.ref.namespace == package.namespace


def _age(trigger: KnownTrigger) -> tuple[datetime, str]:
    return (trigger.created, trigger.uid)
