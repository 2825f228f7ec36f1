"""Unfinished runs of each trigger, in the order in which their turns come. A look costs the same however many wait."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

SHOWN = 3
"""Runs that are looked at of those before a run in the queue: the first ones, and the ones just before it."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Turn:
    """One unfinished run in the queue of its trigger: older ones come first, then the name decides."""

    created: datetime
    name: str


@dataclass(kw_only=True)
class _Queue:
    """Of one trigger."""

    turns: list[Turn] = field(default_factory=list)  # sorted
    out_of_turn: dict[str, Turn] = field(default_factory=dict)  # may have a process, wherever they stand in the queue


@dataclass(frozen=True, kw_only=True, slots=True)
class Fired:
    """Who fired a run: a trigger of a package. A run of another package that names the trigger is not in its queue."""

    namespace: str
    trigger_uid: str
    package: str | None


class Backlog:
    """Queues of triggers."""

    def __init__(self) -> None:
        self._queues: dict[Fired, _Queue] = {}

    def add(self, fired: Fired, turn: Turn) -> None:
        """It is unfinished; known already: fine."""
        queue = self._queues.setdefault(fired, _Queue())
        if _find(queue.turns, turn) is None:
            insort(queue.turns, turn)

    def remove(self, fired: Fired, turn: Turn) -> None:
        """It has ended, or is gone; not known: fine."""
        queue = self._queues.get(fired)
        if queue is None:
            return
        found = _find(queue.turns, turn)
        if found is not None:
            del queue.turns[found]
        queue.out_of_turn.pop(turn.name, None)
        if not queue.turns:
            del self._queues[fired]

    def mark(self, fired: Fired, turn: Turn) -> None:
        """It was started, or may have been: others of its trigger look at it wherever it stands."""
        queue = self._queues.get(fired)
        if queue is not None and _find(queue.turns, turn) is not None:
            queue.out_of_turn[turn.name] = turn

    def others(self, fired: Fired, turn: Turn) -> tuple[Turn, ...]:
        """Those that decide whether ``turn`` has come: all that may have a process, the first in the queue, and those
        just before it. Any older one that is unfinished, and was left out, stands between these."""
        queue = self._queues.get(fired)
        if queue is None:
            return ()
        here = bisect_left(queue.turns, turn)
        before = {*queue.turns[: min(SHOWN, here)], *queue.turns[max(0, here - SHOWN) : here]}
        return tuple(sorted((before | set(queue.out_of_turn.values())) - {turn}))

    def next_after(self, fired: Fired, turn: Turn) -> tuple[Turn, ...]:
        """Whose turn may have come now that ``turn`` has ended: the first in the queue, and the one that followed."""
        queue = self._queues.get(fired)
        if queue is None:
            return ()
        here = bisect_left(queue.turns, turn)
        return tuple(dict.fromkeys((*queue.turns[:1], *queue.turns[here : here + 1])))

    def names(self, fired: Fired, limit: int) -> tuple[str, ...]:
        """The first ``limit`` in the queue."""
        queue = self._queues.get(fired)
        return () if queue is None else tuple(turn.name for turn in islice(queue.turns, limit))

    def count(self, fired: Fired) -> int:
        """How many are in the queue."""
        queue = self._queues.get(fired)
        return 0 if queue is None else len(queue.turns)


def _find(turns: Sequence[Turn], turn: Turn) -> int | None:
    here = bisect_left(turns, turn)
    return here if here < len(turns) and turns[here] == turn else None
