"""Points of every scenario with every fault, and combinations: no promise is broken. `make faults` visits all."""

from __future__ import annotations

import random

import pytest
from faults.scenarios import SCENARIOS
from faults.store import Fault, Point
from faults.sweep import Visit, combinations, every_point, sweep

COMBINATIONS = 1_000
BLOCKS = 20
POINTS = 6  # of each scenario and topology, drawn from a seed that is the same every time
SEED = 20261125


def unbroken(visits: list[Visit]) -> None:
    """Fails with the lines that repeat what broke."""
    broken = [f"{outcome}\n  {outcome.broken}" for outcome in sweep(visits) if outcome.broken]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("together", [False, True], ids=["cluster", "daemon"])
@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_points(scenario: str, together: bool) -> None:
    every = list(every_point(scenario, together=together))
    unbroken(random.Random(SEED).sample(every, POINTS))


@pytest.mark.parametrize("block", range(BLOCKS))
def test_combinations(block: int) -> None:
    unbroken(list(combinations(COMBINATIONS // BLOCKS, SEED + block * COMBINATIONS)))


def test_every_call_of_a_scenario_is_a_point_with_faults() -> None:
    visits = list(every_point("state", together=False))
    points = {planned[0][0] for _, _, _, planned in visits}
    components = {point.component for point in points}
    assert components == {"operator", "poller", "run"}
    assert {point.call for point in points} >= {"get", "list", "create", "write_status", "follow", "change"}
    assert len(visits) == sum(len(point.faults) for point in points)
    assert {fault for _, _, _, planned in visits for _, fault in planned} == set(Fault)


def test_a_case_is_the_same_each_time_it_is_repeated() -> None:
    what: Visit = ("state", 3, False, ((Point.parse("poller.create.WorkflowRun#2"), Fault.CRASH_AFTER),))
    first, again = sweep([what, what])
    assert first.struck
    assert (first.passed, first.seconds, str(first)) == (again.passed, again.seconds, str(again))
