"""A store that stops or misleads whoever calls it, at chosen calls; behind it a real one. Decides nothing by itself."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from faults.backends import Backend
from faults.processes import CURRENT, Killed, Opened, Process
from faults.record import Record

from cloaca.errors import StoreUnavailable
from cloaca.resources import CloacinaPackage, Ref, Resource, Trigger, TriggerLedger, WorkflowRun
from cloaca.store.base import Change, Store
from cloaca.store.oddities import Oddities

R = TypeVar("R", bound=Resource[Any, Any])
T = TypeVar("T")

KINDS = {kind.KIND: kind for kind in (CloacinaPackage, Trigger, TriggerLedger, WorkflowRun)}


class Fault(str, Enum):
    """What happens at a call."""

    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    ANSWER_LOST = "time-out, applied"
    AWAY = "fails"
    CONFLICT = "conflict"
    STALE = "stale read"
    DROPS = "watch drops"
    GIVEN_UP = "taken for dead"


WRITES = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.ANSWER_LOST, Fault.AWAY)
READS = (Fault.CRASH_BEFORE, Fault.AWAY)  # after a read all is as it was before: to crash then is the same
FAULTS: Mapping[str, tuple[Fault, ...]] = {
    "get": (*READS, Fault.STALE),
    "list": (*READS, Fault.STALE),
    "create": WRITES,
    "update": (*WRITES, Fault.CONFLICT),
    "write_status": (*WRITES, Fault.CONFLICT),
    "delete": WRITES,
    "follow": (Fault.CRASH_BEFORE, Fault.AWAY),
    "change": (Fault.CRASH_AFTER, Fault.DROPS),
}
STALL = 4.0  # seconds after which a process that was taken for dead goes on


class Point(NamedTuple):
    """One call of a scenario: the n-th of its kind by a component, from 1."""

    component: str
    call: str
    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.component}.{self.call}.{self.kind}#{self.number}"

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What can happen here. Only a run and a poller have somebody who takes their place while they live."""
        asks = self.call not in ("follow", "change")
        return FAULTS[self.call] + ((Fault.GIVEN_UP,) if asks and self.component in ("run", "poller") else ())

    @classmethod
    def parse(cls, text: str) -> Point:
        """What ``str`` gave."""
        place, _, number = text.partition("#")
        component, call, kind = place.split(".")
        return cls(component, call, kind, int(number))


class Faults:
    """Which fault waits at which point, and which points were passed."""

    def __init__(self, planned: Mapping[Point, Fault]) -> None:
        self.planned = planned
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self.passed: list[Point] = []
        self.struck: list[tuple[Point, Fault]] = []

    def at(self, component: str, call: str, kind: str) -> Fault | None:
        """What happens at this call; None: nothing."""
        number = self._counts[component, call, kind] = self._counts[component, call, kind] + 1
        point = Point(component, call, kind, number)
        self.passed.append(point)
        fault = self.planned.get(point)
        if fault is not None:
            self.struck.append((point, fault))
        return fault


class FaultyStore:
    """The store as one process of ``component`` sees it."""

    def __init__(
        self,
        opened: Opened,
        backend: Backend,
        *,
        component: str,
        process: Process,
        faults: Faults,
        record: Record,
        chance: random.Random,
    ) -> None:
        self._opened = opened
        self._backend = backend
        self._component = component
        self._process = process
        self._faults = faults
        self._record = record
        self._chance = chance
        self.oddities = Oddities()
        self.oddities.told = lambda odd: record.broken.append(f"{component} leaves out {odd.ref}: {odd.message}")

    async def get(self, kind: type[R], name: str, namespace: str = "default") -> R | None:
        ref = Ref(kind.KIND, namespace, name)
        return await self._call(
            "get",
            kind.KIND,
            lambda store: store.get(kind, name, namespace),
            stale=lambda now: self._record.before(ref, now),
        )

    async def list(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[R, ...]:
        return await self._call(
            "list", kind.KIND, lambda store: store.list(kind, namespace, labels), stale=self._record.list_before
        )

    async def each(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[R]:
        return iter(await self.list(kind, namespace, labels))

    async def unfinished_runs(self) -> tuple[WorkflowRun, ...]:
        return await self._call("list", WorkflowRun.KIND, lambda store: store.unfinished_runs())

    async def create(self, obj: R) -> R:
        return await self._write("create", obj.ref, lambda store: store.create(obj))

    async def update(self, obj: R) -> R:
        return await self._write("update", obj.ref, lambda store: store.update(obj))

    async def write_status(self, obj: R) -> R:
        return await self._write("write_status", obj.ref, lambda store: store.write_status(obj))

    async def delete(self, ref: Ref, uid: str | None = None) -> bool:
        async def applied(store: Store) -> bool:
            deleted = await store.delete(ref, uid)
            if deleted:
                self._wrote(ref, None)
            return deleted

        return await self._call("delete", ref.kind, applied)

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        return self._changes()

    @asynccontextmanager
    async def _changes(self) -> AsyncIterator[AsyncIterator[Change]]:
        await self._call("follow", "changes", _nothing)
        async with (await self._opened.store()).changes() as changes:
            yield self._passing_on(changes)

    async def _passing_on(self, changes: AsyncIterator[Change]) -> AsyncIterator[Change]:
        follower = object()
        while True:
            change = await self._backend.hear(follower, changes)
            self._alive()
            fault = self._faults.at(self._component, "change", change.ref.kind)
            if fault is Fault.CRASH_AFTER:
                self._crash()
            if fault is Fault.DROPS:
                raise StoreUnavailable("injected: the watch was closed, and this change with it")
            yield change

    async def close(self) -> None:
        return None  # it is closed when its process is dead

    # --- what happens at a call

    async def _write(self, call: str, ref: Ref, apply: Callable[[Store], Awaitable[R]]) -> R:
        async def applied(store: Store) -> R:
            answer = await apply(store)
            self._wrote(ref, answer)
            return answer

        async def touched(store: Store) -> None:
            """Somebody else writes the object first, so that the call meets a real conflict."""
            seen = await store.get(KINDS[ref.kind], ref.name, ref.namespace)
            if seen is not None:
                mark = {**seen.metadata.annotations, "faults/touched": str(self._chance.random())}
                self._wrote(ref, await store.update(seen.with_metadata(annotations=mark)))

        return await self._call(call, ref.kind, applied, touched=touched)

    def _wrote(self, ref: Ref, after: Resource[Any, Any] | None) -> None:
        if self._record.wrote(ref, after):
            self._backend.wrote(ref, after)

    async def _call(
        self,
        call: str,
        kind: str,
        apply: Callable[[Store], Awaitable[T]],
        *,
        stale: Callable[[T], T] | None = None,
        touched: Callable[[Store], Awaitable[None]] | None = None,
    ) -> T:
        self._alive()
        fault = self._faults.at(self._component, call, kind)
        await self._opened.loop.pause(self._chance.uniform(0.0005, 0.004))
        self._alive()
        if fault is Fault.CRASH_BEFORE:
            self._crash()
        if fault is Fault.GIVEN_UP:
            self._process.give_up()
            self._record.stalled += 1
            try:
                await asyncio.sleep(STALL)
            finally:
                self._record.stalled -= 1
            self._alive()
        if fault is Fault.AWAY:
            raise StoreUnavailable(f"injected: the {call} of a {kind} failed")
        if fault is Fault.CONFLICT and touched is not None:
            await self._opened.call(touched)
        answer = await self._opened.call(apply)
        if fault is Fault.CRASH_AFTER:
            self._crash()
        if fault is Fault.ANSWER_LOST:
            raise StoreUnavailable(f"injected: the {call} of a {kind} was applied, and its answer lost")
        if fault is Fault.STALE and stale is not None:
            answer = stale(answer)
        await self._opened.loop.pause(self._chance.uniform(0.0005, 0.004))
        self._alive()
        return answer

    def _alive(self) -> None:
        self._process.check()
        current = CURRENT.get()
        if current is not None:
            current.check()

    def _crash(self) -> None:
        self._process.kill()
        raise Killed(self._component)


async def _nothing(_: Store) -> None:
    return None
