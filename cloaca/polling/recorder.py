"""Record what polls found: the intent, the runs, the commit. Keeps no time, and calls no function of a package.

A store that is away is asked again and again: a fire is kept until it is recorded.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar

from cloaca.errors import Conflict, Invalid, NotFound, StoreUnavailable
from cloaca.polling import tick
from cloaca.polling.entry import Entry
from cloaca.polling.messages import Fire
from cloaca.polling.observe import PollObserver
from cloaca.polling.submission import NamesTaken, Replaced, TriggerGone, has_second_name, submit
from cloaca.polling.tick import fired_by
from cloaca.resources.names import keyed_run_name
from cloaca.resources.package import RunDefaults
from cloaca.resources.run import WorkflowRun
from cloaca.resources.trigger import FireIntent, PendingTick, Trigger
from cloaca.store.base import Store

log = logging.getLogger("cloaca.polling")

T = TypeVar("T")

PATIENCE = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Seconds between tries while the store is away; the last one repeats."""


@dataclass
class Found:
    """What became of the fires of one poll: names of runs."""

    submitted: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)  # of fires whose key had fired before


class Recorder:
    """Records polls of the triggers of one package."""

    def __init__(self, store: Store, *, package: str, namespace: str, observer: PollObserver) -> None:
        self._store = store
        self._package = package
        self._namespace = namespace
        self._observer = observer
        self.defaults = RunDefaults()
        """What runs get from their package."""

    async def submit(self, entry: Entry, fires: tuple[Fire, ...], state: dict[str, Any] | None, found: Found) -> bool:
        """Make the runs of ``fires``; returns when they are durable, and whether the status is to be written.

        It need not be where all of them had fired before: a function may find the same things at each call. Raises
        TriggerGone, AnswerTooLarge, and CloacaError where the store will never take a fire.
        """
        if any(fire.key is not None for fire in fires):
            fires = await self._persistently(partial(self._new, entry, fires, found))
            if not fires:
                return False
        *before, last = tick.batches(fires)
        for batch in before:
            await self._fire(entry, batch, None, found)
        await self._fire(entry, last, state, found)
        return True

    async def _fire(self, entry: Entry, fires: tuple[Fire, ...], state: dict[str, Any] | None, found: Found) -> None:
        """One tick: its intent, where it needs one, and its runs."""
        seen = entry.trigger.model_copy(update={"status": tick.poll_half(entry.status, entry.trigger.status)})
        pending = tick.intend(seen, fires, state, [uuid.uuid4().hex for _ in fires])
        if tick.needs_record(pending):
            entry.status = entry.status.model_copy(update={"pending": pending})
            await self.write(entry)
        await self.finish(entry, pending, found)

    async def finish(self, entry: Entry, pending: PendingTick, found: Found, *, again: bool = False) -> None:
        """Make those runs of ``pending`` that do not exist yet, and count the tick as done. ``again``: some may."""
        made: list[str] = []
        if any(fire.key is not None for fire in pending.fires):
            await self._persistently(entry.fired.refresh)
        for fire in pending.fires:
            if fire.key is not None and fire.key in entry.fired:
                found.duplicates.append(fire.name)
                continue
            try:
                name, ours = await self._made(entry, pending, fire, again=again)
            except NamesTaken:
                entry.status = entry.status.model_copy(update={"pending": pending})
                raise
            if ours:
                made.append(name)
            else:
                found.duplicates.append(name)
        found.submitted.extend(made)
        now = datetime.now(timezone.utc)
        entry.status = tick.committed(entry.status, pending, now=now, submitted=made)

    async def claim(self, entry: Entry) -> None:
        """Have the trigger be polled by this poller alone, unless something was recorded since it was read: then go on
        from that, and look anew whether to.

        There may be another one: the node of a pod that was given up may still run it. Raises TriggerGone.
        """

        async def claim() -> bool:
            claimed = entry.status.model_copy(update={"poller": entry.trigger.status.poller + 1})
            seen = entry.trigger.model_copy(update={"status": tick.poll_half(claimed, entry.trigger.status)})
            try:
                entry.trigger = await self._store.write_status(seen)
            except NotFound:
                raise TriggerGone(f"{entry.trigger.ref} was deleted") from None
            except Conflict:
                entry.trigger = await self._fresh(entry)
                entry.status = tick.taken_over(entry.status, entry.trigger.status)
                return False
            entry.status = claimed
            return True

        entry.ours = await self._persistently(claim)

    async def write(self, entry: Entry) -> None:
        """Record our half of the status, of a trigger that was claimed. Raises TriggerGone, and Invalid where the store
        will never take it: then the entry goes on from what the store has."""
        ticks, entry.unwritten = entry.unwritten, []
        entry.status = tick.with_ticks(entry.status, ticks)
        entry.written_at = asyncio.get_running_loop().time()

        async def write() -> Trigger:
            while True:
                status = tick.poll_half(entry.status, entry.trigger.status)
                try:
                    return await self._store.write_status(entry.trigger.model_copy(update={"status": status}))
                except NotFound:
                    raise TriggerGone(f"{entry.trigger.ref} was deleted") from None
                except Conflict:
                    entry.trigger = await self._fresh(entry)
                    if tick.is_replaced(entry.status, entry.trigger.status):
                        raise Replaced(f"another poller polls {entry.trigger.ref} now") from None

        try:
            entry.trigger = await self._persistently(write)
        except Invalid:  # such as one that is too large
            entry.status = tick.taken_over(entry.status, entry.trigger.status)
            raise

    async def _fresh(self, entry: Entry) -> Trigger:
        fresh = await self._store.get(Trigger, entry.name, self._namespace)
        if fresh is None or fresh.metadata.uid != entry.trigger.metadata.uid:
            raise TriggerGone(f"{entry.trigger.ref} was deleted")
        return fresh

    async def _new(self, entry: Entry, fires: tuple[Fire, ...], found: Found) -> tuple[Fire, ...]:
        """The fires without those that are known to have fired before, whose runs are added to the duplicates."""
        mark, uid = entry.repeats.mark, entry.trigger.metadata.uid
        names = ["" if fire.key is None else keyed_run_name(entry.name, uid, fire.key) for fire in fires]
        if any(fire.key is not None and name not in entry.repeats for fire, name in zip(fires, names, strict=True)):
            await entry.fired.refresh()
        new, repeated = [], []
        for fire, name in zip(fires, names, strict=True):
            if fire.key is None:
                new.append(fire)
            elif name in entry.repeats or fire.key in entry.fired or await self._is_there(entry, name, fire.key):
                repeated.append(name)
                entry.repeats.add(name, mark)
            else:
                new.append(fire)
        found.duplicates.extend(repeated)
        return tuple(new)

    async def _is_there(self, entry: Entry, name: str, key: str) -> bool:
        run = await self._store.get(WorkflowRun, name, self._namespace)
        return run is not None and run.spec.key == key and fired_by(run, entry.trigger)

    async def _made(self, entry: Entry, pending: PendingTick, fire: FireIntent, *, again: bool) -> tuple[str, bool]:
        """As ``submit`` of one fire, however long that takes. ``again``: it was tried before, with whatever success."""

        async def make() -> tuple[str, bool]:
            nonlocal again
            tried, again = again, True
            if tried and (name := await has_second_name(self._store, entry.trigger, fire)):
                return name, True
            return await submit(self._store, entry, pending, fire, self.defaults)

        return await self._persistently(make)

    async def _persistently(self, call: Callable[[], Awaitable[T]]) -> T:
        tries = 0
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                self._observer.store_failed()
                log.warning("package %s: the store is away, a fire is kept: %s", self._package, error)
            await asyncio.sleep(PATIENCE[min(tries, len(PATIENCE) - 1)] * (1 + random.random() / 4))
            tries += 1
