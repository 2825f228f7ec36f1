"""Decide which run may start when more want to than may run at once: in turn by namespace, and by package within it.

Knows limits and who waits; starts nothing. Belongs to one event loop.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from cloaca.resources import Ref, WorkflowRun

Place = tuple[str, str]  # namespace and package
K = TypeVar("K", bound=Place | str)

SERVED_KEPT = 1_000
"""Namespaces and packages of which it is known when a run of theirs last started; older ones count as never served."""


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """How many runs may have a process at once."""

    total: int
    """Of all namespaces together."""
    per_namespace: int | None = None
    """Of one namespace; None: as many as in total."""
    per_package: int | None = None
    """Of one package; None: as many as of its namespace."""


class Turns:
    """Whose run starts next.

    A run that may not start yet takes its place behind the others of its package. When a process ends, the next one is
    of another namespace than the last, if another one waits: a tenant with thousands of runs delays the run of another
    tenant by one process at most.
    """

    def __init__(
        self,
        limits: RunLimits,
        *,
        running: Callable[[], Collection[Ref]],
        package_of: Callable[[Ref], str | None],
        wake: Callable[[Ref], None],
    ) -> None:
        """``running``: the runs that have a process. ``package_of``: the package of such a run; None: not known any
        more. ``wake``: has a run looked at, whose turn has come."""
        self.limits = limits
        self._running = running
        self._package_of = package_of
        self._wake = wake
        self._waiting: dict[str, dict[str, dict[Ref, None]]] = {}  # by namespace and package, the oldest first
        self._served: dict[Place | str, int] = {}  # namespace or place -> when a run of it last started, counted
        self._starts = 0
        self._place: dict[Ref, Place] = {}  # of each run that waits

    def hindrance(self, run: WorkflowRun) -> str | None:
        """Why ``run`` may not start now, in words; it waits for its turn then. None: it may, and must be started before
        anything else is asked here."""
        ref, place = run.ref, _place_of(run)
        counts = self._counts()
        self._join(ref, place)
        full = self._full(place, counts)
        if full is not None:
            return full
        if ref not in self._next(counts):
            return "other runs have waited longer for the next free place"
        self._remove(ref)
        self._was_served(place)
        return None

    def leave(self, ref: Ref) -> None:
        """The run does not wait for its turn, or not any more."""
        if ref in self._place:
            self._remove(ref)

    def wake(self) -> None:
        """Have those looked at that may start now."""
        if self._place:
            for ref in self._next(self._counts()):
                self._wake(ref)

    def count(self) -> int:
        """How many runs wait for their turn."""
        return len(self._place)

    # --- counting

    def _counts(self) -> Counter[Place | str | None]:
        """How many run: in total (under None), by namespace, and by namespace and package."""
        counts: Counter[Place | str | None] = Counter()
        for ref in self._running():
            counts[None] += 1
            counts[ref.namespace] += 1
            counts[(ref.namespace, self._package_of(ref) or "")] += 1
        return counts

    def _full(self, place: Place, counts: Counter[Place | str | None]) -> str | None:
        """The limit that keeps a run of ``place`` from starting, in words; None: none does."""
        namespace, package = place
        limits = self.limits
        if counts[None] >= limits.total:
            return f"as many runs as may run at once are running ({limits.total})"
        if limits.per_namespace is not None and counts[namespace] >= limits.per_namespace:
            return f"as many runs as one namespace may have at once are running in {namespace} ({limits.per_namespace})"
        if limits.per_package is not None and counts[place] >= limits.per_package:
            return f"as many runs as one package may have at once are running of {package!r} ({limits.per_package})"
        return None

    # --- the order

    def _next(self, counts: Counter[Place | str | None]) -> Collection[Ref]:
        """Those who wait and may start now, all of them at once, in the order of their turns."""
        counts = counts.copy()
        chosen: dict[Ref, None] = {}
        turns = deque(self._in_turn(namespace, counts) for namespace in self._longest_ago(self._waiting))
        while turns and counts[None] < self.limits.total:
            turn = turns.popleft()
            ref = next(turn, None)
            if ref is None:
                continue  # nobody waits there any more, or the namespace has as many as it may
            namespace, package = self._place[ref]
            chosen[ref] = None
            counts.update((None, namespace, (namespace, package)))
            turns.append(turn)
        return chosen.keys()

    def _in_turn(self, namespace: str, counts: Counter[Place | str | None]) -> Iterator[Ref]:
        """Those who wait in a namespace, package by package, as long as ``counts``, which grows, lets them start."""
        packages = self._waiting[namespace]
        places = self._longest_ago((namespace, package) for package in packages)
        queues = deque((place, iter(packages[place[1]])) for place in places)
        while queues:
            place, waiting = queues.popleft()
            ref = None if self._full(place, counts) is not None else next(waiting, None)
            if ref is not None:
                yield ref
                queues.append((place, waiting))

    def _join(self, ref: Ref, place: Place) -> None:
        if ref not in self._place:
            namespace, package = place
            self._place[ref] = place
            self._waiting.setdefault(namespace, {}).setdefault(package, {})[ref] = None

    def _remove(self, ref: Ref) -> None:
        namespace, package = self._place.pop(ref)
        packages = self._waiting[namespace]
        del packages[package][ref]
        if not packages[package]:
            del packages[package]
        if not packages:
            del self._waiting[namespace]

    def _was_served(self, place: Place) -> None:
        """One of its runs is being started."""
        self._starts += 1
        self._served |= {place[0]: self._starts, place: self._starts}
        if len(self._served) > 2 * SERVED_KEPT:
            newest = sorted(self._served.items(), key=lambda served: served[1])[-SERVED_KEPT:]
            self._served = dict(newest)

    def _longest_ago(self, keys: Iterable[K]) -> list[K]:
        """``keys`` in the order in which they were served last; those that never were come first."""
        return sorted(keys, key=lambda key: self._served.get(key, 0))


def _place_of(run: WorkflowRun) -> Place:
    return (run.metadata.namespace, "" if run.spec.package_ref is None else run.spec.package_ref.name)
