"""Tell the cluster what happened to objects, as Events. Never delays other work: what is too much is left out."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cloaca.errors import AlreadyExists, Forbidden, NotFound, StoreError, StoreUnavailable
from cloaca.resources import Ref, Resource, Trigger, WorkflowRun
from cloaca.store.oddities import Oddity
from cloacina_operator.core.events import Event, events_of, of_oddity

log = logging.getLogger("cloacina.events")

RECENT = timedelta(minutes=5)
"""What happened longer ago, before we first saw the object, is no news: another operator said it."""
WAITING = 500
"""Events that wait to be sent; the oldest go first."""
REMEMBERED = 64
"""Of each object: what was said of it."""
BURST, REFILL = 20, timedelta(minutes=1)
"""Events of one reason about one object at once, and after how long one more."""
EARLY = 100
"""Runs that are remembered until their trigger is seen."""
ENDED = 5_000
"""Runs that have ended and are remembered for as long as their end is no old news, which would be said again."""
LEFT_OUT_KEPT = 5_000
"""Events about objects that cannot be read which are remembered, so that none is sent twice."""
SELDOM = timedelta(minutes=10)
"""Between two that say what often is so."""
AT_ONCE, A_SECOND = 100, 10.0
"""Events about all objects at once, and how many more each second."""
_PAUSE = 5.0  # seconds before another try, while the API server is away

Record = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Makes an Event object in a namespace. Raises AlreadyExists where it was made before, StoreUnavailable while the API
server is away."""


@dataclass
class _Allowance:
    """How many more may be said now: a bucket that time fills again."""

    most: float
    refill: timedelta
    left: float = field(init=False)
    at: datetime | None = None
    left_out: int = 0  # since the last one that was said

    def __post_init__(self) -> None:
        self.left = self.most

    def take(self, now: datetime) -> bool:
        if self.at is not None:
            self.left = min(self.most, self.left + max(0.0, (now - self.at) / self.refill))
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass
class _Known:
    """What was said of one object."""

    uid: str
    names: dict[str, None] = field(default_factory=dict)  # of Events, in order of their coming
    allowances: dict[str, _Allowance] = field(default_factory=dict)  # by reason
    over: bool = False  # it is a run that has ended


class Announcer:
    """Belongs to one event loop. ``seen`` is told of every object as it is now, ``run()`` sends."""

    def __init__(self, record: Record, *, instance: str, now: Callable[[], datetime]) -> None:
        """``instance``: who reports, in each Event."""
        self._record = record
        self._instance = instance
        self._now = now
        self._known: dict[Ref, _Known] = {}
        self._packages: dict[str, str] = {}  # uid of a trigger -> its package
        self._early: dict[Ref, WorkflowRun] = {}  # that were seen before their trigger
        self._ended: deque[tuple[datetime, Ref]] = deque()
        self._left_out: dict[str, datetime | None] = {}  # names of Events about objects that were left out
        self._whole = _Allowance(AT_ONCE, timedelta(seconds=1 / A_SECOND))
        self._waiting: deque[tuple[Ref, dict[str, Any]]] = deque(maxlen=WAITING)
        self._news = asyncio.Event()

    def seen(self, ref: Ref, obj: Resource[Any, Any] | None) -> None:
        """Take note of an object as it is now; None: it is gone."""
        known = self._known.get(ref)
        if known is not None and (obj is None or obj.metadata.uid != known.uid):
            self._packages.pop(known.uid, None)
            del self._known[ref]
            known = None
        if obj is None:
            return
        now = self._now()
        over = isinstance(obj, WorkflowRun) and obj.status.phase.finished
        if known is None and over and (obj.status.finished_at or now) < now - RECENT:
            return
        it = known or self._known.setdefault(ref, _Known(obj.metadata.uid))
        for event in events_of(obj):
            if isinstance(obj, WorkflowRun) and event.about != ref and not self._is_fired_by(obj, event.uid):
                continue
            if event.name not in it.names:
                it.names[event.name] = None
                if known is not None or event.at >= now - RECENT:
                    self._say(event, now)
        while len(it.names) > REMEMBERED:
            del it.names[next(iter(it.names))]
        if over and not it.over:
            it.over = True
            self._ended.append((now, ref))
            self._forget_the_ended(now)
        if isinstance(obj, Trigger) and obj.metadata.uid not in self._packages:
            self._packages[obj.metadata.uid] = obj.spec.package_ref.name
            for run in [run for run in self._early.values() if _trigger_of(run) == obj.metadata.uid]:
                self.seen(run.ref, self._early.pop(run.ref))

    def left_out(self, oddity: Oddity) -> None:
        """An object cannot be read or handled. Says so on it, unless its uid is unknown, which an Event must name."""
        if oddity.uid:
            now = self._now()
            event = of_oddity(oddity, now)
            said = self._left_out.setdefault(event.name, None) is not None
            if len(self._left_out) > LEFT_OUT_KEPT:
                del self._left_out[next(iter(self._left_out))]
            if not said and self._whole.take(now):
                self._left_out[event.name] = now
                self._waiting.append((event.about, event.document(self._instance, now)))
                self._news.set()

    def _forget_the_ended(self, now: datetime) -> None:
        """Nothing will happen to them any more, and there may be very many."""
        while self._ended and (len(self._ended) > ENDED or now - self._ended[0][0] > 2 * RECENT):
            _, ref = self._ended.popleft()
            if (known := self._known.get(ref)) is not None and known.over:
                del self._known[ref]

    def _is_fired_by(self, run: WorkflowRun, trigger: str) -> bool:
        """Whether it is one of that trigger's package: what another one says of the trigger is not true."""
        if trigger not in self._packages:  # each kind has a watch of its own, and that of triggers may be slower
            self._early[run.ref] = run
            if len(self._early) > EARLY:
                del self._early[next(iter(self._early))]
            return False
        return run.spec.package_ref is not None and self._packages[trigger] == run.spec.package_ref.name

    def _say(self, event: Event, now: datetime) -> None:
        of = self._known.setdefault(event.about, _Known(event.uid))
        most, refill = (1, SELDOM) if event.again else (BURST, REFILL)
        allowance = of.allowances.setdefault(event.reason, _Allowance(most, refill))
        if not (allowance.take(now) and self._whole.take(now)):
            allowance.left_out += 1
            return
        at = event.at if event.at >= now - RECENT else now  # of a condition, it is when the status changed, not why
        document = event.document(self._instance, at, left_out=allowance.left_out)
        self._waiting.append((event.about, document))
        allowance.left_out = 0
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._send(*self._waiting.popleft())

    async def _send(self, about: Ref, document: dict[str, Any]) -> None:
        while True:
            try:
                return await self._record(about.namespace, document)
            except (AlreadyExists, NotFound):
                return None  # said before, perhaps by a try whose answer got lost; or the namespace is gone
            except StoreUnavailable as error:
                if isinstance(error, Forbidden):
                    log.debug("%s: an Event was refused: %s", about, error)  # where the namespace is being deleted
                    return None
            except StoreError as error:
                log.warning("%s: the Event %s was refused: %s", about, document["reason"], error)
                return None
            await asyncio.sleep(_PAUSE)


def _trigger_of(run: WorkflowRun) -> str | None:
    return None if run.spec.trigger_ref is None else run.spec.trigger_ref.uid
