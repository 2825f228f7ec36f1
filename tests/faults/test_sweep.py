"""Points of every scenario with every fault, and combinations: no promise is broken. `make faults` visits all."""

from __future__ import annotations

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from cluster.control_plane import ControlPlane
from faults import backends
from faults.__main__ import in_order
from faults.scenarios import SCENARIOS
from faults.store import Fault, Point
from faults.sweep import Group, combinations, every_point, fairly, on_cluster, sample, sweep, visit
from faults.world import Case

COMBINATIONS = 1_000
BLOCKS = 20
POINTS = 6  # of each scenario and topology, drawn from a seed that is the same every time
FILE_POINTS = 3  # of those, on a SQLite file
SERVER_POINTS = 2  # of each scenario, on a server
SEED = 20261125
POLLER_DIES = (Point.parse("poller.get.Trigger#2"), Fault.CRASH_AFTER)
STATUS_IS_LOST = (Point.parse("run.write_status.WorkflowRun#2"), Fault.ANSWER_LOST)


def unbroken(cases: list[Case]) -> None:
    """Fails with the lines that repeat what broke."""
    broken = [f"{outcome.case}\n  {outcome.broken}" for outcome in sweep(cases) if outcome.broken]
    assert not broken, "\n".join(broken)


def drawn(scenario: str, count: int, *, together: bool, on: str) -> list[Case]:
    return random.Random(SEED).sample(every_point(scenario, together=together, on=on), count)


@pytest.mark.parametrize("together", [False, True], ids=["cluster", "daemon"])
@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_points(scenario: str, together: bool) -> None:
    unbroken(drawn(scenario, POINTS, together=together, on="memory"))


@pytest.mark.parametrize("together", [False, True], ids=["cluster", "daemon"])
@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_points_on_a_file(scenario: str, together: bool) -> None:
    unbroken(drawn(scenario, FILE_POINTS, together=together, on="file"))


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_points_on_postgres(scenario: str) -> None:
    if why := backends.missing("postgres"):
        pytest.skip(why)
    unbroken(drawn(scenario, SERVER_POINTS, together=False, on="postgres"))


@pytest.fixture
def api_server(control_plane: ControlPlane) -> None:
    if not control_plane.processes:
        pytest.skip("the objects in namespace default of the cluster of $KUBECONFIG are somebody's")
    backends.use(control_plane.kubeconfig)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
@pytest.mark.usefixtures("api_server")
def test_points_on_an_api_server(scenario: str) -> None:
    unbroken(drawn(scenario, SERVER_POINTS, together=False, on="kubernetes"))


@pytest.mark.usefixtures("api_server")
def test_of_runs_that_were_made_within_one_second_the_first_that_starts_keeps_its_turn() -> None:
    late = ((Point.parse("poller.create.WorkflowRun#2"), Fault.AWAY),)
    unbroken([Case(scenario="forbid-keyed", seed=seed, on="kubernetes", planned=late) for seed in (2, 3, 5)])


@pytest.mark.parametrize("block", range(BLOCKS))
def test_combinations(block: int) -> None:
    on = "file" if block % 4 == 3 else "memory"
    unbroken(list(combinations(COMBINATIONS // BLOCKS, SEED + block * COMBINATIONS, on=on)))


def test_every_call_of_a_scenario_is_a_point_with_faults() -> None:
    cases = every_point("state", together=False)
    points = {case.planned[0][0] for case in cases}
    components = {point.component for point in points}
    assert components == {"operator", "poller", "run"}
    assert {point.call for point in points} >= {"get", "list", "create", "write_status", "follow", "change"}
    assert len(cases) == sum(len(point.faults) for point in points)
    assert {fault for case in cases for _, fault in case.planned} == set(Fault)


@pytest.mark.parametrize("on", ["memory", "file"])
@pytest.mark.parametrize("scenario", ["keyed", "forbid-unfit", "update"])
def test_a_case_goes_the_same_way_call_for_call_each_time(scenario: str, on: str) -> None:
    faults = (POLLER_DIES, STATUS_IS_LOST)
    for together in (False, True):
        case = Case(scenario=scenario, seed=11, together=together, on=on, planned=faults)
        first, again = visit(case), visit(case)
        assert (first.passed, first.seconds) == (again.passed, again.seconds), case
        assert (first.struck, first.broken) == (again.struck, again.broken), case


@pytest.mark.parametrize("on", ["memory", "file"])
@pytest.mark.parametrize(
    "call", ["operator.get.CloacinaPackage#3", "poller.list.WorkflowRun#1", "run.get.WorkflowRun#2"]
)
def test_a_crash_after_a_read_is_the_crash_before_it(on: str, call: str) -> None:
    point = Point.parse(call)
    before, after = (
        visit(Case(scenario="forbid", on=on, planned=((point, fault),)))
        for fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER)
    )
    assert (before.passed, before.seconds, before.broken) == (after.passed, after.seconds, after.broken)
    assert [fault for _, fault in (*before.struck, *after.struck)] == [Fault.CRASH_BEFORE, Fault.CRASH_AFTER]


@pytest.mark.parametrize("on", ["memory", "file"])
def test_a_case_goes_the_same_way_in_another_process_which_leaves_no_files(
    on: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = Case(scenario="update", seed=12, on=on, planned=(POLLER_DIES, STATUS_IS_LOST))
    monkeypatch.setenv("PYTHONHASHSEED", "7")  # the order of sets is another one there
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(visit, case).result()
    assert list(tmp_path.iterdir()) == []
    here = visit(case)
    assert (here.passed, here.seconds, here.struck) == (there.passed, there.seconds, there.struck)


@pytest.mark.parametrize("on", ["memory", "file"])
@pytest.mark.parametrize("scenario", ["state", "generator-state", "unkeyed"])
def test_a_poller_that_was_taken_for_dead_and_lives_stops_once_another_one_polls(scenario: str, on: str) -> None:
    calls = ("get.Trigger#1", "write_status.Trigger#1", "write_status.Trigger#2", "create.WorkflowRun#2")
    places = [Point.parse(f"poller.{call}") for call in calls]
    cases = [Case(scenario=scenario, on=on, planned=((place, Fault.GIVEN_UP),)) for place in places]
    outcomes = list(sweep(cases))
    assert [outcome.broken for outcome in outcomes] == [[]] * 4
    assert [outcome.struck for outcome in outcomes] == [[(place, Fault.GIVEN_UP)] for place in places]


@pytest.mark.parametrize("change", ["Trigger#6", "WorkflowRun#4", "Trigger#7"])
def test_a_package_that_went_while_nobody_followed_and_is_still_found_keeps_no_poller(change: str) -> None:
    drops = Point.parse(f"operator.change.{change}")
    unbroken(
        [
            Case(scenario="delete", together=True, planned=((drops, Fault.DROPS), (found, Fault.STALE)))
            for found in (Point.parse(f"operator.get.CloacinaPackage#{number}") for number in range(18, 23))
        ]
    )


@pytest.mark.parametrize("scenario", ["state", "unkeyed"])
def test_a_poller_that_was_replaced_takes_its_trigger_back_once_the_other_one_is_gone(scenario: str) -> None:
    late, gone = Point.parse("poller.write_status.Trigger#1"), Point.parse("poller.write_status.Trigger#7")
    case = Case(scenario=scenario, planned=((late, Fault.GIVEN_UP), (gone, Fault.CRASH_AFTER)))
    outcome = visit(case)
    assert outcome.broken == []
    assert outcome.struck == [(late, Fault.GIVEN_UP), (gone, Fault.CRASH_AFTER)]
    assert outcome.seconds > 300.0  # it was the one that had been replaced which went on


def test_who_stops_early_has_visited_the_same_part_of_each_group() -> None:
    many = [Case(scenario="keyed", seed=seed) for seed in range(100)]
    few = [Case(scenario="state", seed=seed) for seed in range(10)]
    groups = [
        Group(on="memory", scenario=name, total=len(cases), cases=sample(cases, None, SEED))
        for name, cases in (("keyed", many), ("state", few))
    ]
    half = fairly(groups)[:55]
    assert [sum(case.scenario == name for case in half) for name in ("keyed", "state")] == [50, 5]
    assert sorted(str(case) for case in fairly(groups)) == sorted(str(case) for case in many + few)


def test_cases_in_memory_come_first() -> None:
    groups = [
        Group(on=on, scenario="keyed", total=3, cases=[Case(scenario="keyed", on=on, seed=seed) for seed in range(3)])
        for on in ("file", "memory", "postgres")
    ]
    assert [case.on for case in in_order(groups)] == ["memory"] * 3 + ["file", "postgres"] * 3


def test_a_cluster_has_no_daemon() -> None:
    cases = list(on_cluster(combinations(5, 0)))
    assert {(case.on, case.together) for case in cases} == {("kubernetes", False)}
