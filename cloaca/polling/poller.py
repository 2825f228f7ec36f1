"""The poller of one package: keeps time, calls the functions through workers, submits what they fire, exactly once."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from cloaca.errors import CloacaError, StoreUnavailable, Unreadable
from cloaca.failure import one_line
from cloaca.polling import schedule, tick
from cloaca.polling.entry import Entry, resumed_status, timing
from cloaca.polling.ledger import FiredKeys
from cloaca.polling.messages import Ended, Fire
from cloaca.polling.observe import PollObserver, Unobserved
from cloaca.polling.recorder import PATIENCE, Found, Recorder
from cloaca.polling.submission import Replaced, TriggerGone
from cloaca.polling.tick import fired_by
from cloaca.polling.workers import WORKER_MEMORY, PollFailed, PollInterrupted, Publish, StartWorker, Workers
from cloaca.resources.package import CloacinaPackage
from cloaca.resources.ref import Ref
from cloaca.resources.run import TriggerReference, WorkflowRun
from cloaca.resources.spans import parse_span
from cloaca.resources.trigger import ConcurrencyPolicy, EffectiveSettings, Tick, Trigger
from cloaca.store.base import Change, Store
from cloaca.store.oddities import Stage

log = logging.getLogger("cloaca.polling")

_seconds = lru_cache(maxsize=1_024)(parse_span)  # two are asked for at each poll

FLUSH_AFTER = 60.0  # seconds that polls which skip may stay unrecorded
SHORTEST = 0.1  # seconds between two polls, whatever a status says
RESYNC = 300.0  # seconds between two looks at everything, for what no change told


class Poller:
    """Polls the triggers of one package, as long as ``run()`` runs.

    Only triggers whose effective digest is ``digest`` are polled: while a package moves to another archive, the old
    poller and the new one never both call a function.
    """

    def __init__(
        self,
        store: Store,
        *,
        package: str,
        namespace: str,
        digest: str,
        start_worker: StartWorker,
        worker_memory: int = WORKER_MEMORY,
        jitter: float = schedule.JITTER,
        observer: PollObserver | None = None,
    ) -> None:
        """``worker_memory``: bytes, see Workers; ``jitter``: the largest part of an interval that chance adds to it."""
        self._store = store
        self._package = package
        self._namespace = namespace
        self._digest = digest
        self._workers = Workers(start_worker, memory=worker_memory)
        self._jitter = jitter
        self._observer = observer or Unobserved()
        self._recorder = Recorder(store, package=package, namespace=namespace, observer=self._observer)
        self._entries: dict[str, Entry] = {}
        self._foreign: set[str] = set()  # runs that are none of ours
        self._replaced: dict[str, float] = {}  # uids of triggers that another poller polls; when they were last written
        self._stopping = False
        self._loop = asyncio.get_event_loop()

    # --- following the store

    async def run(self) -> None:
        """Poll until cancelled. Ends the workers before it returns."""
        try:
            while True:
                try:
                    async with self._store.changes() as changes:
                        await self._look_at_everything()
                        looking = asyncio.ensure_future(self._look_now_and_then())
                        try:
                            await self._follow(changes)
                        finally:
                            looking.cancel()
                except StoreUnavailable as error:
                    self._observer.store_failed()
                    log.warning("package %s: the store is away, polls go on: %s", self._package, error)
                    await asyncio.sleep(PATIENCE[-1])
        finally:
            self._stop_timers()
            self._workers.close()

    async def drain(self, seconds: float) -> None:
        """Call no more functions; take up to ``seconds`` for those that are being called and to record their polls.

        What cannot be recorded by then is lost, and polled again: a fire is not taken before it is recorded.
        """
        self._stopping = True
        self._stop_timers()
        until = self._loop.time() + seconds
        polls = [entry.polling for entry in self._entries.values() if entry.polling is not None]
        if polls:
            await asyncio.wait(polls, timeout=seconds)
        writes = [
            asyncio.ensure_future(self._recorder.write(entry)) for entry in self._entries.values() if entry.unwritten
        ]
        if not writes:
            return
        done, late = await asyncio.wait(writes, timeout=max(0.0, until - self._loop.time()))
        for write in late:
            write.cancel()
        if late:
            log.warning("package %s: the store is away, the last polls are not recorded", self._package)
            await asyncio.wait(late)
        for write in done:
            with suppress(TriggerGone):
                write.result()

    async def _look_now_and_then(self) -> None:
        """A change that was missed, or met by a stale answer, holds nothing up for ever."""
        while True:
            await asyncio.sleep(RESYNC)
            try:
                await self._look_at_everything()
            except StoreUnavailable as error:
                log.warning("package %s: the store is away, polls go on: %s", self._package, error)
            except Exception:
                log.exception("package %s: not everything could be looked at, polls go on", self._package)

    async def _look_at_everything(self) -> None:
        await self._saw_package()
        believed = {name: set(entry.active) for name, entry in self._entries.items()}
        for entry in self._entries.values():
            entry.repeats.clear()
        runs = await self._store.list(WorkflowRun, self._namespace)
        triggers = await self._store.list(Trigger, self._namespace)
        for trigger in triggers:
            with self._store.oddities.guard(trigger.ref, Stage.WATCH, trigger.metadata.uid):
                self._saw_trigger(trigger, runs)
        unfinished = {run.name for run in runs if not run.status.phase.finished}
        for name, active in believed.items():
            if name in self._entries:  # what ended while nobody followed; a run made during the look is in neither
                self._entries[name].active -= active - unfinished
                self._unblock(self._entries[name])
        for gone in set(self._entries) - {trigger.name for trigger in triggers}:
            self._forget(gone)

    async def _follow(self, changes: AsyncIterator[Change]) -> None:
        async for change in changes:
            if change.ref.namespace != self._namespace:
                continue
            oddities = self._store.oddities
            with oddities.guard(change.ref, Stage.WATCH):
                await self._saw(change.ref)
            if change.deleted:
                oddities.gone(change.ref)
            elif change.ref.kind == Trigger.KIND and oddities.unreadable(change.ref):
                self._forget(change.ref.name)  # whoever wrote it knows more than we do

    async def _saw(self, ref: Ref) -> None:
        """Something of our namespace changed."""
        if ref.kind == Trigger.KIND:
            trigger = await self._store.get(Trigger, ref.name, ref.namespace)
            if trigger is None:
                self._forget(ref.name)
            elif trigger.metadata.uid in self._replaced:
                self._replaced[trigger.metadata.uid] = self._loop.time()
            elif trigger.name in self._entries:
                self._saw_trigger(trigger, ())
            elif trigger.spec.package_ref.name == self._package:
                self._saw_trigger(trigger, await self._store.list(WorkflowRun, self._namespace))
        elif ref.kind == WorkflowRun.KIND and ref.name not in self._foreign:
            self._saw_run(ref.name, await self._store.get(WorkflowRun, ref.name, ref.namespace))
        elif ref.kind == CloacinaPackage.KIND and ref.name == self._package:
            await self._saw_package()

    async def _saw_package(self) -> None:
        with suppress(Unreadable):  # noted by the store; its runs keep the defaults that were read last
            package = await self._store.get(CloacinaPackage, self._package, self._namespace)
            if package is not None:
                self._recorder.defaults = package.spec.runs

    def _saw_trigger(self, trigger: Trigger, runs: tuple[WorkflowRun, ...]) -> None:
        if trigger.spec.package_ref.name != self._package or not self._is_left_to_us(trigger):
            return
        entry = self._entries.get(trigger.name)
        if entry is not None and entry.trigger.metadata.uid != trigger.metadata.uid:
            self._forget(trigger.name)  # deleted and made again: another trigger, with a history of its own
            entry = None
        if entry is None:
            by = TriggerReference(name=trigger.name, uid=trigger.metadata.uid)
            fired = FiredKeys(self._store, by, self._namespace)
            entry = Entry(trigger=trigger, status=resumed_status(trigger, runs), fired=fired)
            entry.active = {run.name for run in runs if fired_by(run, trigger) and not run.status.phase.finished}
            self._entries[trigger.name] = entry
            self._plan(entry, first=True)
            return
        if entry.ours and tick.is_replaced(entry.status, trigger.status):
            self._let_go(entry, Replaced(f"another poller polls {trigger.ref} now"))
            return
        before, entry.trigger = entry.trigger, trigger
        if trigger.spec.schedule is not None:
            entry.status = trigger.status  # the operator fires it by the clock, and writes all of it
        elif entry.ours:
            entry.status = tick.poll_half(entry.status, trigger.status)
        else:
            entry.status = tick.taken_over(entry.status, trigger.status)
        if timing(before) != timing(trigger):
            self._plan(entry, first=True)

    def _saw_run(self, name: str, run: WorkflowRun | None) -> None:
        if run is None or run.status.phase.finished:
            for entry in self._entries.values():
                if run is None:
                    entry.repeats.forget(name)
                if name in entry.active:
                    entry.active.discard(name)
                    self._unblock(entry)
            return
        entry_of_it = None if run.spec.trigger_ref is None else self._entries.get(run.spec.trigger_ref.name)
        if entry_of_it is not None and fired_by(run, entry_of_it.trigger):
            entry_of_it.active.add(name)
            return
        if len(self._foreign) > 100_000:
            self._foreign.clear()
        self._foreign.add(name)

    def _forget(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None and entry.timer is not None:
            entry.timer.cancel()

    def _is_left_to_us(self, trigger: Trigger) -> bool:
        """Whether no other poller polls it, or the one that did has not been heard of for so long that it is gone."""
        written, effective = self._replaced.get(trigger.metadata.uid), trigger.status.effective
        if written is None:
            return True
        if effective is None or effective.digest != self._digest:
            return False
        if self._loop.time() - written < max(2 * FLUSH_AFTER, 2 * _seconds(effective.poll_interval)):
            return False
        del self._replaced[trigger.metadata.uid]
        return True

    def _let_go(self, entry: Entry, why: TriggerGone) -> None:
        """Poll it no more."""
        if isinstance(why, Replaced):
            log.warning("%s", why)
            self._replaced[entry.trigger.metadata.uid] = self._loop.time()
        if self._entries.get(entry.name) is entry:
            self._forget(entry.name)

    # --- keeping time

    def _plan(self, entry: Entry, *, first: bool = False, blocked: bool = False) -> None:
        """Set the time of the next poll: at once after a start, a change of settings or the end of what blocked it."""
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        effective = self._pollable(entry)
        if effective is None or entry.polling is not None:
            return
        now = self._loop.time()
        interval = max(SHORTEST, _seconds(effective.poll_interval))
        errors = entry.status.consecutive_errors
        uid = entry.trigger.metadata.uid
        if errors and not first:
            due = schedule.after_errors(now=now, interval=interval, errors=errors, chance=random.random())
        elif first or blocked:
            due = now
        else:
            due = schedule.next_poll(now=now, interval=interval, uid=uid, chance=random.random(), jitter=self._jitter)
        entry.status = entry.status.model_copy(update={"next_poll_time": _now() + timedelta(seconds=due - now)})
        entry.timer = self._loop.call_at(due, self._due, entry)

    def _pollable(self, entry: Entry) -> EffectiveSettings | None:
        """The settings to poll with, or None: not by us, or not now."""
        effective = entry.trigger.status.effective
        if self._stopping or effective is None or effective.digest != self._digest:
            return None
        if entry.trigger.spec.suspend or entry.trigger.spec.schedule is not None:
            return None
        return effective

    def _due(self, entry: Entry) -> None:
        lateness = 0.0 if entry.timer is None else self._loop.time() - entry.timer.when()
        entry.timer = None
        effective = self._pollable(entry)
        if effective is None or self._entries.get(entry.name) is not entry:
            return
        if not entry.ours:
            entry.polling = self._loop.create_task(self._claim(entry))
            return
        if effective.concurrency_policy is ConcurrencyPolicy.FORBID and entry.active:
            if not entry.blocked:
                entry.blocked = True
                blocked = tick.blocked_tick(time=_now(), run=min(entry.active))
                entry.unwritten.append(blocked)
                self._observer.ticked(blocked, fires=0, duplicates=0)
            if entry.unwritten:  # anew where a change of settings had it look again
                entry.timer = self._loop.call_later(FLUSH_AFTER, self._still_blocked, entry)
            return
        self._observer.began(lateness)
        entry.polling = self._loop.create_task(self._poll(entry, effective))

    async def _claim(self, entry: Entry) -> None:
        """See to it that nobody else polls it; then look anew, since that may have taken its time."""
        try:
            await self._recorder.claim(entry)
        except TriggerGone as gone:
            self._let_go(entry, gone)
        except CloacaError as refused:
            log.warning("trigger %s cannot be polled: %s", entry.name, refused)
            await asyncio.sleep(PATIENCE[-1])
        finally:
            entry.polling = None
            if self._entries.get(entry.name) is entry:
                self._plan(entry, first=True)

    def _still_blocked(self, entry: Entry) -> None:
        """It has been for so long that whoever asks why it does not fire should read it."""
        entry.timer = None
        if self._entries.get(entry.name) is entry:
            entry.polling = self._loop.create_task(self._record(entry))

    async def _record(self, entry: Entry) -> None:
        try:
            await self._recorder.write(entry)
        except TriggerGone as gone:
            self._let_go(entry, gone)
        finally:
            entry.polling = None
            if not entry.blocked and self._entries.get(entry.name) is entry:
                self._plan(entry, blocked=True)

    def _unblock(self, entry: Entry) -> None:
        if entry.blocked and not entry.active:
            entry.blocked = False
            self._plan(entry, blocked=True)

    def _stop_timers(self) -> None:
        for entry in self._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()
                entry.timer = None

    # --- one poll

    async def _poll(self, entry: Entry, effective: EffectiveSettings) -> None:
        time, started = _now(), self._loop.time()
        found = Found()

        async def publish(fires: tuple[Fire, ...], state: dict[str, Any] | None) -> None:
            made = await self._recorder.submit(entry, fires, state, found)
            if made or self._keep(entry, state):
                await self._recorder.write(entry)

        def observed(ended: Tick) -> None:
            self._observer.ticked(ended, fires=len(found.submitted), duplicates=len(found.duplicates))

        async def failed(error: str) -> None:
            bad = tick.error_tick(time=time, duration=self._loop.time() - started, error=error)
            observed(bad)
            await self._failed(entry, bad, error)

        try:
            error = None
            try:
                ended = await self._call(entry, effective, publish, found)
            except PollFailed as stopped:
                error = tick.error_text(str(stopped), None)
            else:
                error = None if ended.error is None else tick.error_text(ended.error, ended.traceback)
                if error is None and ended.fires:
                    await self._recorder.submit(entry, ended.fires, ended.state, found)
            if error is not None:
                await failed(error)
            else:
                done = tick.ended_tick(
                    time=time,
                    duration=self._loop.time() - started,
                    submitted=found.submitted,
                    duplicates=found.duplicates,
                    reason=ended.reason,
                )
                observed(done)
                await self._succeeded(entry, done, ended.state)
        except TriggerGone as gone:
            self._let_go(entry, gone)
        except CloacaError as refused:  # a fire that the store will never take, such as one over the limit
            await failed(tick.error_text(str(refused), None))
        finally:
            entry.polling = None
            if self._entries.get(entry.name) is entry:
                self._plan(entry)

    async def _call(self, entry: Entry, effective: EffectiveSettings, publish: Publish, found: Found) -> Ended:
        """Call the function, once all that it fired before has its runs."""
        timeout = _seconds(effective.timeout)
        while True:
            if entry.status.pending is not None:
                await self._recorder.finish(entry, entry.status.pending, found, again=True)
            state = entry.status.state
            try:
                return await self._workers.poll(entry.trigger.spec.name, effective.config, state, timeout, publish)
            except PollInterrupted as interrupted:
                log.info("trigger %s: %s; it is called again", entry.name, interrupted)

    async def _failed(self, entry: Entry, failed: Tick, error: str) -> None:
        log.warning("trigger %s: poll failed: %s", entry.name, one_line(error.partition("\n")[0]))
        entry.unwritten.append(failed)
        entry.status = tick.after_error(entry.status, error)
        await self._recorder.write(entry)

    async def _succeeded(self, entry: Entry, done: Tick, state: dict[str, Any] | None) -> None:
        """Record a poll that ended well: at once where it says something new, else with the next one."""
        news = entry.status.consecutive_errors > 0 or tick.is_news(done, (*entry.unwritten[-1:], *entry.status.ticks))
        entry.unwritten.append(done)
        entry.unwritten = entry.unwritten[-tick.TICKS_KEPT :]
        entry.status = tick.after_success(entry.status)
        changed = self._keep(entry, state)
        if news or changed or self._loop.time() - entry.written_at >= FLUSH_AFTER:
            await self._recorder.write(entry)

    def _keep(self, entry: Entry, state: dict[str, Any] | None) -> bool:
        """Take over the function's state; whether it has changed."""
        if state is None or state == entry.status.state:
            return False
        entry.status = entry.status.model_copy(update={"state": state})
        return True


def _now() -> datetime:
    return datetime.now(timezone.utc)
