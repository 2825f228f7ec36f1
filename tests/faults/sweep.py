"""Which cases there are: every point of a scenario with every fault that fits, and random combinations from a seed."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from faults.scenarios import SCENARIOS
from faults.store import Point
from faults.world import Case, Outcome, play

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue


@cache
def points(scenario: str, seed: int, *, together: bool) -> tuple[Point, ...]:
    """The calls of the scenario where nothing goes wrong."""
    outcome = visit(Case(scenario=scenario, seed=seed, together=together))
    assert not outcome.broken, (str(outcome.case), outcome.broken)
    return tuple(point for point in outcome.passed if point.component != "person")


def every_point(scenario: str, *, together: bool, on: str = "memory", seed: int = 0) -> list[Case]:
    """One case for each call and each fault that fits it."""
    return [
        Case(scenario=scenario, seed=seed, together=together, on=on, planned=((point, fault),))
        for point in points(scenario, seed, together=together)
        for fault in point.faults
    ]


def combinations(count: int, seed: int, *, on: str = "memory") -> Iterator[Case]:
    """``count`` cases of two to four faults each."""
    chance = random.Random(seed)
    for number in range(count):
        scenario, together = chance.choice(sorted(SCENARIOS)), chance.random() < 0.5
        planned = {}
        for _ in range(chance.randint(2, 4)):
            point = chance.choice(points(scenario, 0, together=together))
            point = Point(point.component, point.call, point.kind, point.number + chance.randint(0, 3))
            planned[point] = chance.choice(point.faults)
        yield Case(scenario=scenario, seed=seed + number, together=together, on=on, planned=tuple(planned.items()))


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cases that are of one kind, in the order in which they are visited."""

    on: str
    scenario: str  # empty: combinations, of all scenarios
    total: int  # how many there are of that kind
    cases: Sequence[Case]  # those that are to be visited


def sample(cases: Sequence[Case], count: int | None, seed: int) -> list[Case]:
    """``count`` of them (None: all), in an order from the seed: whoever stops early has a fair sample."""
    order = random.Random(seed).sample(cases, len(cases))
    return order if count is None else order[:count]


def fairly(groups: Iterable[Group]) -> list[Case]:
    """All their cases, in such an order that all groups get on evenly."""
    placed = [
        ((number + 0.5) / len(group.cases), place, case)
        for place, group in enumerate(groups)
        for number, case in enumerate(group.cases)
    ]
    return [case for _, _, case in sorted(placed, key=lambda item: item[:2])]


def on_cluster(cases: Iterable[Case]) -> Iterator[Case]:
    """``cases`` on an API server, where operator and pollers are never one process."""
    return (replace(case, on="kubernetes", together=False) for case in cases)


def visit(case: Case) -> Outcome:
    """Go there."""
    return play(SCENARIOS[case.scenario], case)


def sweep(cases: Sequence[Case], *, processes: int = 1, seconds: float | None = None) -> Iterator[Outcome]:
    """The outcomes, as they come; after ``seconds`` no more of them."""
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    if processes == 1:
        for case in cases:
            if time.monotonic() > deadline:
                return
            yield visit(case)
        return
    context = multiprocessing.get_context("spawn")  # a fork would lack the threads that its memory speaks of
    places = context.SimpleQueue()
    for number in range(processes):
        places.put(number)
    with ProcessPoolExecutor(processes, context, _settle, (places,)) as pool:
        for outcome in pool.map(_briefly, cases, chunksize=4):
            yield outcome
            if time.monotonic() > deadline:
                pool.shutdown(wait=False, cancel_futures=True)
                return


def _settle(places: SimpleQueue[int]) -> None:
    """In a process that is to visit many cases: its threads take turns, which costs least on one processor."""
    number = places.get()
    if hasattr(os, "sched_setaffinity"):  # Linux
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[number % len(allowed)]})
    gc.freeze()  # what a case leaves is not worth a look at all that was there before
    gc.set_threshold(20_000, 20, 100)


def _briefly(case: Case) -> Outcome:
    outcome = visit(case)
    outcome.passed.clear()  # much to carry from one process to another, and nobody asks for it
    return outcome
