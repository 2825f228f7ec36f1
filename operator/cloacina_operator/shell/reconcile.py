"""Follow the store, and for each object: get, gather, plan, perform, write status once. The same for every host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from typing_extensions import assert_never

from cloaca.errors import AlreadyExists, Conflict, NotFound, StoreUnavailable, Unreadable
from cloaca.resources import CloacinaPackage, Ref, Resource, RunPhase, RunStatus, Trigger, WorkflowRun
from cloaca.resources.run import TriggerReference
from cloaca.store import Store
from cloaca.store.oddities import Oddities, Oddity, Stage
from cloacina_operator.core import packages, runs, triggers
from cloacina_operator.core.history import FinishedRun
from cloacina_operator.core.plan import (
    Action,
    AwaitNews,
    CancelRun,
    CollectRuns,
    CreateTrigger,
    EnsurePoller,
    Fetch,
    Inspect,
    Plan,
    StartRun,
    StopPoller,
    StopRun,
    SubmitRun,
)
from cloacina_operator.core.runs import ObservedRun
from cloacina_operator.core.turns import RunLimits, Turns
from cloacina_operator.executors.base import ArchiveMissing, Executor
from cloacina_operator.executors.parts import together
from cloacina_operator.shell.archives import Archives
from cloacina_operator.shell.gather import Gather
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.ledgers import Ledgers
from cloacina_operator.shell.queue import Queue

log = logging.getLogger("cloacina.reconcile")

R = TypeVar("R", bound=Resource[Any, Any])

WORKERS = 8
RESYNC = 300.0  # seconds between two looks at everything, for what no event told
SETTLING = 0.25  # seconds in which the beginnings and ends of a trigger's runs gather for one write of its status
STORE_PAUSE = 1.0  # seconds before the store is followed again after it went away


class Reconciler:
    """Keeps the world as the objects say. Two of them at once are harmless: names and conflicts decide."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        archives: Archives,
        index: Index,
        queue: Queue,
        now: Callable[[], datetime],
        limits: RunLimits,
        store_failed: Callable[[], None],
        source_trouble: Callable[[Ref], str | None] = lambda _: None,
        oddities: Oddities | None = None,
    ) -> None:
        """``store_failed`` is told of each time that the store did not answer. ``source_trouble``: see ``Gather``.
        ``oddities``: those of ``store``."""
        self._oddities = oddities or Oddities()
        self.turns = Turns(limits, running=executor.running, package_of=index.package_of, wake=queue.add)
        self._store = store
        self._executor = executor
        self._archives = archives
        self._index = index
        self._queue = queue
        self._now = now
        self._store_failed = store_failed
        self._ledgers = Ledgers(store)
        self._gather = Gather(
            store=store,
            index=index,
            executor=executor,
            archives=archives,
            ledgers=self._ledgers,
            source_trouble=source_trouble,
        )

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await together([*(self._work() for _ in range(WORKERS)), self._follow()])

    async def _follow(self) -> None:
        """Put on the queue what changes, and now and then everything."""
        while True:
            try:
                async with self._store.changes() as changes:
                    await self._look_at_everything()
                    resync = asyncio.ensure_future(self._resync())
                    try:
                        async for change in changes:
                            for ref in await self._index.saw(change):
                                gathers = ref.kind == Trigger.KIND and change.ref.kind == WorkflowRun.KIND
                                self._queue.add_after(ref, SETTLING if gathers else 0.0)
                    finally:
                        resync.cancel()
            except StoreUnavailable as error:
                self._store_failed()
                log.warning("the store is away: %s", error)
            await asyncio.sleep(STORE_PAUSE)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC)
            try:
                await self._look_at_everything()
                await self._archives.sweep()
            except StoreUnavailable as error:
                self._store_failed()
                log.warning("the store is away, everything is looked at again in %g s: %s", RESYNC, error)
            except Exception:
                log.exception("not everything could be looked at; it is tried again in %g s", RESYNC)

    async def _look_at_everything(self) -> None:
        for ref in await self._index.load():
            self._queue.add(ref)

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(0)  # where nothing has to be waited for, reads from memory included, others get a turn
            ref = await self._queue.get()
            failed = False
            try:
                after = await self.reconcile(ref)
                if after is not None:
                    self._queue.add_after(ref, after.total_seconds())
                self._oddities.well(ref, Stage.DECIDE)
            except Unreadable:
                pass  # it, or an object that it names: noted by the store, and looked at again when that changes
            except Conflict:
                failed = True  # somebody was quicker: look again
            except StoreUnavailable as error:
                self._store_failed()
                log.warning("%s: the store is away: %s", ref, error)
                failed = True
            except Exception as error:  # noqa: BLE001  # no object may end the work on others
                said = f"{type(error).__name__}: {error}"
                self._oddities.note(Oddity(ref=ref, uid=self._index.uid(ref), message=said, stage=Stage.DECIDE), error)
                failed = True
            finally:
                self._queue.done(ref, failed=failed)

    async def reconcile(self, ref: Ref) -> timedelta | None:
        """One look at one object. Returns when to look again, if not only when something changes."""
        if ref.kind == CloacinaPackage.KIND:
            return await self._reconcile_package(ref)
        if ref.kind == Trigger.KIND:
            return await self._reconcile_trigger(ref)
        if ref.kind == WorkflowRun.KIND:
            try:
                return await self._reconcile_run(ref)
            except BaseException:
                self.turns.leave(ref)  # nobody waits behind a run that cannot be looked at
                raise
            finally:
                self.turns.wake()
        return None

    async def _reconcile_package(self, ref: Ref) -> timedelta | None:
        package = await self._store.get(CloacinaPackage, ref.name, ref.namespace)
        if package is None:
            if self._index.expects(ref):
                raise Conflict(f"{ref}: the answer is older than what was heard of it: look again")
            self._archives.forget(ref)
            await self._executor.remove_package(ref)
            return None
        if self._index.is_gone(ref):
            raise Conflict(f"{ref}: the answer is older than its deletion: look again")
        return await self._carry_out(package, packages.plan(await self._gather.package(package, self._now())), package)

    async def _reconcile_trigger(self, ref: Ref) -> timedelta | None:
        trigger = await self._store.get(Trigger, ref.name, ref.namespace)
        if trigger is None:
            self._ledgers.forget(ref)
            return None
        observed = await self._gather.trigger(trigger, self._now())
        return await self._carry_out(trigger, triggers.plan(observed), observed.package)

    async def _reconcile_run(self, ref: Ref) -> timedelta | None:
        run = await self._store.get(WorkflowRun, ref.name, ref.namespace)
        if run is None or run.status.phase.finished:
            self.turns.leave(ref)
            self._index.has_no_process(ref)
        if run is None:
            await self._executor.remove_run(ref)
            return None
        if run.status.phase.finished:
            self._executor.forget_run(ref)
            return await self._carry_out(run, runs.plan(await self._gather.run(run, self._now())), None)
        package = None
        if run.spec.package_ref is not None:
            package = await self._store.get(CloacinaPackage, run.spec.package_ref.name, ref.namespace)
        elif run.spec.trigger_ref is None:
            return None  # of a program in library mode, which executes it itself
        return await self._carry_out(run, self._plan_run(await self._gather.run(run, self._now())), package)

    def _plan_run(self, observed: ObservedRun) -> Plan[RunStatus]:
        """What is planned where nothing but the limits is in the way, or because they are."""
        decided = runs.plan(observed)
        if not any(isinstance(action, StartRun) for action in decided.actions):
            self.turns.leave(observed.run.ref)
            return decided
        no_slot = self.turns.hindrance(observed.run)
        return decided if no_slot is None else runs.plan(replace(observed, no_slot=no_slot))

    async def _carry_out(self, seen: R, plan: Plan[Any], package: CloacinaPackage | None) -> timedelta | None:
        for action in plan.actions:
            try:
                await self._perform(action, seen.metadata.namespace, package)
            except ArchiveMissing as error:
                log.warning("%s: %s", seen.ref, error)
                active = None if package is None else package.status.active
                if package is not None and active is not None and getattr(action, "digest", None) == active.digest:
                    self._archives.lost(package.ref)  # an older one cannot be fetched any more
        if plan.status != seen.status:
            try:
                await self._store.write_status(seen.model_copy(update={"status": plan.status}))
            except NotFound:
                return None  # deleted meanwhile; the change that says so is on its way
        return plan.requeue_after

    async def _perform(self, action: Action, namespace: str, package: CloacinaPackage | None) -> None:
        match action:
            case StopRun(run=run):
                await self._executor.stop_run(run.ref)
            case CancelRun(name=name):
                await self._cancel(name, namespace)
            case CollectRuns(runs=collected, trigger=fired_by):
                await self._collect(collected, fired_by, namespace)
            case SubmitRun(run=run):
                with suppress(AlreadyExists):  # named by its time: another look, or another operator, made it
                    await self._store.create(run)
            case CreateTrigger(trigger=trigger):
                await self._create_trigger(trigger)
            case _ if package is None:
                raise LookupError(f"{action} needs a package")
            case Fetch() | AwaitNews() | Inspect():
                self._archives.perform(action, package)
            case EnsurePoller(digest=digest):
                await self._executor.ensure_poller(package, digest)
            case StopPoller():
                await self._executor.stop_poller(package.ref)
            case StartRun(run=run, digest=digest, attempt=attempt):
                self._index.begins(run)
                await self._executor.start_run(run, package, digest, attempt)
            case _:
                assert_never(action)

    async def _create_trigger(self, trigger: Trigger) -> None:
        try:
            await self._store.create(trigger)
        except AlreadyExists:
            if self._oddities.unreadable(trigger.ref):
                return
            existing = await self._store.get(Trigger, trigger.name, trigger.metadata.namespace)
            if existing is not None and existing.spec.package_ref != trigger.spec.package_ref:
                log.warning(
                    "%s exists for package %r, so package %r cannot have one of that name: apply one by hand",
                    trigger.ref,
                    existing.spec.package_ref.name,
                    trigger.spec.package_ref.name,
                )
        except NotFound:
            log.info("%s: its package was deleted meanwhile", trigger.ref)

    async def _collect(
        self, collected: tuple[FinishedRun, ...], trigger: TriggerReference | None, namespace: str
    ) -> None:
        """Keys first, and the runs when the keys are durable: a crash in between repeats, and forgets nothing."""
        keys = [run.key for run in collected if run.key is not None and run.phase is not RunPhase.DEDUPLICATED]
        if trigger is not None and keys:
            await self._ledgers.enter(trigger, namespace, keys, collected[0].package)
        for run in collected:
            await self._store.delete(Ref(WorkflowRun.KIND, namespace, run.name), uid=run.uid)

    async def _cancel(self, name: str, namespace: str) -> None:
        run = await self._store.get(WorkflowRun, name, namespace)
        if run is None or run.spec.cancel or run.status.phase.finished:
            return
        await self._store.update(run.with_spec(cancel=True))


def utc_now() -> datetime:
    """The time, for hosts."""
    return datetime.now(timezone.utc)
