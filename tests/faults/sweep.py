"""Visits the points of scenarios: every one with every fault that fits, and random combinations from a seed."""

from __future__ import annotations

import math
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache

from faults.scenarios import SCENARIOS
from faults.store import Fault, Point
from faults.world import Outcome, play

Visit = tuple[str, int, bool, tuple[tuple[Point, Fault], ...]]
"""Scenario, seed, whether operator and poller are one process, and what is planned."""


@cache
def points(scenario: str, seed: int, *, together: bool) -> list[Point]:
    """The calls of the scenario where nothing goes wrong."""
    outcome = play(SCENARIOS[scenario], seed=seed, together=together)
    assert not outcome.broken, (str(outcome), outcome.broken)
    return [point for point in outcome.passed if point.component != "person"]


def every_point(scenario: str, *, together: bool, seed: int = 0, each: int | None = None) -> Iterator[Visit]:
    """One visit for each call and each fault that fits it; ``each``: so many of those, drawn from the seed."""
    chance = random.Random(seed)
    for point in points(scenario, seed, together=together):
        for fault in point.faults if each is None else chance.sample(point.faults, min(each, len(point.faults))):
            yield scenario, seed, together, ((point, fault),)


def combinations(count: int, seed: int) -> Iterator[Visit]:
    """``count`` visits of two to four faults each."""
    chance = random.Random(seed)
    for number in range(count):
        scenario, together = chance.choice(sorted(SCENARIOS)), chance.random() < 0.5
        planned = {}
        for _ in range(chance.randint(2, 4)):
            point = chance.choice(points(scenario, 0, together=together))
            point = Point(point.component, point.call, point.kind, point.number + chance.randint(0, 3))
            planned[point] = chance.choice(point.faults)
        yield scenario, seed + number, together, tuple(planned.items())


def visit(what: Visit) -> Outcome:
    """Go there."""
    scenario, seed, together, planned = what
    return play(SCENARIOS[scenario], seed=seed, together=together, planned=dict(planned))


def sweep(visits: Iterable[Visit], *, processes: int = 1, seconds: float | None = None) -> Iterator[Outcome]:
    """The outcomes, as they come; after ``seconds`` no more of them."""
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    if processes == 1:
        for what in visits:
            if time.monotonic() > deadline:
                return
            yield visit(what)
        return
    context = multiprocessing.get_context("spawn")  # a fork would lack the threads that its memory speaks of
    with ProcessPoolExecutor(processes, context) as pool:
        for outcome in pool.map(visit, list(visits), chunksize=4):
            yield outcome
            if time.monotonic() > deadline:
                pool.shutdown(wait=False, cancel_futures=True)
                return


class Table:
    """Points by faults: how often each was visited, and how often a promise was broken there."""

    def __init__(self) -> None:
        self._visited: Counter[tuple[str, Fault]] = Counter()
        self._broken: Counter[tuple[str, Fault]] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Count what struck."""
        for point, fault in outcome.struck:
            where = (f"{point.component} | {point.call} {point.kind}", fault)
            self._visited[where] += 1
            self._broken[where] += bool(outcome.broken)

    @property
    def total(self) -> int:
        """How many faults struck."""
        return sum(self._visited.values())

    def markdown(self) -> str:
        """A row a call, a column a fault; a cell is ``visits`` or ``broken of visits``."""
        columns = list(Fault)
        rows = sorted({row for row, _ in self._visited})
        lines = [
            "| component | call | " + " | ".join(fault.value for fault in columns) + " |",
            "|---|---|" + "---:|" * len(columns),
        ]
        for row in rows:
            cells = [self._cell(row, fault) for fault in columns]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def _cell(self, row: str, fault: Fault) -> str:
        visited, broken = self._visited[row, fault], self._broken[row, fault]
        if not visited:
            return ""
        return f"**{broken} of {visited} broken**" if broken else str(visited)
