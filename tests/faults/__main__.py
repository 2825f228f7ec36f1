"""Break everything, and write the table of what was broken where: ``python -m faults --all``; or repeat one case."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path

from faults.backends import BACKENDS, missing
from faults.results import Results, report
from faults.scenarios import SCENARIOS
from faults.store import Fault, Point
from faults.sweep import Group, combinations, every_point, fairly, on_cluster, sample, sweep, visit
from faults.world import Case

PAGE = Path(__file__).parents[2] / "docs/reference/reliability.md"
BEGIN, END = "<!-- table: written by make faults -->", "<!-- end of the table -->"
SEED = 20261125
COMBINATIONS = {"memory": 20_000, "file": 2_000, "postgres": 500, "kubernetes": 500}
POINTS: dict[str, int | None] = {"memory": None, "file": None, "postgres": 100, "kubernetes": 100}  # a scenario; all


def main() -> int:
    """Returns 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("scenario", nargs="?", choices=sorted(SCENARIOS), help="repeat one case of this scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--daemon", action="store_true", help="operator and poller are one process")
    parser.add_argument("--on", choices=list(BACKENDS), action="append", help="the store; with --all: only these")
    parser.add_argument("--at", default="", help="'point=fault; point=fault', as a failing case prints it")
    parser.add_argument("--all", action="store_true", help="every point with every fault, and combinations")
    parser.add_argument("--minutes", type=float, help="stop after so many; the next time goes on from there")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    if given.scenario is not None:
        on = (given.on or ["memory"])[0]
        planned = _planned(given.at)
        return _repeat(Case(scenario=given.scenario, seed=given.seed, together=given.daemon, on=on, planned=planned))
    if not given.all:
        parser.error("name a scenario, or give --all")
    logging.getLogger("cloacina").addHandler(logging.NullHandler())
    logging.getLogger("cloacina").propagate = False
    return _visit_all(given.on or list(BACKENDS), given.minutes, given.processes, write=given.write)


def _planned(text: str) -> tuple[tuple[Point, Fault], ...]:
    parts = [part.strip().partition("=") for part in text.split(";") if part.strip()]
    return tuple((Point.parse(point), Fault(fault)) for point, _, fault in parts)


def _repeat(case: Case) -> int:
    outcome = visit(case)
    print(case)
    for point, fault in outcome.struck:
        print(f"  struck: {point}={fault.value}")
    for broken in outcome.broken:
        print(f"  broken: {broken}")
    return 1 if outcome.broken else 0


def groups() -> list[Group]:
    """Everything there is, and what of it is to be visited."""
    found = []
    for on in BACKENDS:
        for scenario in SCENARIOS:
            cases = every_point(scenario, together=False, on=on)
            if on != "kubernetes":
                cases += every_point(scenario, together=True, on=on)
            visited = sample(cases, POINTS[on], SEED)
            found.append(Group(on=on, scenario=scenario, total=len(cases), cases=visited))
        random = combinations(COMBINATIONS[on], SEED, on=on)
        chosen = list(on_cluster(random) if on == "kubernetes" else random)
        found.append(Group(on=on, scenario="", total=len(chosen), cases=chosen))
    return found


def in_order(groups: Iterable[Group]) -> list[Case]:
    """All their cases: first those in memory, where one costs least, then those on all other stores evenly."""
    chosen = list(groups)
    stages = [[group for group in chosen if (group.on == "memory") is first] for first in (True, False)]
    return [case for stage in stages for case in fairly(stage)]


def _visit_all(stores: list[str], minutes: float | None, processes: int, *, write: bool) -> int:
    os.environ.setdefault("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)  # all processes share one PostgreSQL server
    for on in stores:
        if why := missing(on):
            print(f"nothing on {on}: {why}", file=sys.stderr)
    stores = [on for on in stores if not missing(on)]
    every, results, broken = groups(), Results.of_this_code(), 0
    left = [case for case in in_order(group for group in every if group.on in stores) if case not in results]
    print(f"{len(results):,} cases are known of this code, {len(left):,} are left", flush=True)
    for outcome in sweep(left, processes=processes, seconds=None if minutes is None else minutes * 60):
        results.add(outcome)
        if outcome.broken:
            broken += 1
            print(f"{outcome.case}\n  " + "\n  ".join(outcome.broken), flush=True)
    said = report(every, results)
    print(said.partition("\n")[0])
    if write:
        page = PAGE.read_text()
        head, rest = page.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{said}\n\n{END}{rest.split(END)[1]}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
