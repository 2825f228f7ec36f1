"""Break everything, and write the table of what was broken where: ``python -m faults --all``; or repeat one case."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import random
import sys
import time
from pathlib import Path

from faults.scenarios import SCENARIOS
from faults.store import Fault, Point
from faults.sweep import Table, Visit, combinations, every_point, sweep, visit

PAGE = Path(__file__).parents[2] / "docs/reference/reliability.md"
BEGIN, END = "<!-- table: written by make faults -->", "<!-- end of the table -->"


def main() -> int:
    """Returns 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("scenario", nargs="?", choices=sorted(SCENARIOS), help="repeat one case of this scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--daemon", action="store_true", help="operator and poller are one process")
    parser.add_argument("--at", default="", help="'point=fault; point=fault', as a failing case prints it")
    parser.add_argument("--all", action="store_true", help="visit every point with every fault")
    parser.add_argument("--each", type=int, help="with so many faults only, drawn for each point from --seed")
    parser.add_argument("--minutes", type=float, help="stop after so many: then the cases come in an order from --seed")
    parser.add_argument("--combinations", type=int, default=0, help="and so many random combinations, from --seed")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    if given.scenario is not None:
        return _repeat((given.scenario, given.seed, given.daemon, _planned(given.at)))
    logging.getLogger("cloacina").addHandler(logging.NullHandler())
    logging.getLogger("cloacina").propagate = False
    visits = list(combinations(given.combinations, given.seed))
    if given.all:
        for name, together in itertools.product(SCENARIOS, (False, True)):
            visits += every_point(name, together=together, seed=given.seed, each=given.each)
    if given.minutes is not None:
        random.Random(given.seed).shuffle(visits)
    return _sweep(visits, minutes=given.minutes, write=given.write)


def _planned(text: str) -> tuple[tuple[Point, Fault], ...]:
    parts = [part.strip().partition("=") for part in text.split(";") if part.strip()]
    return tuple((Point.parse(point), Fault(fault)) for point, _, fault in parts)


def _repeat(what: Visit) -> int:
    outcome = visit(what)
    print(outcome)
    for point, fault in outcome.struck:
        print(f"  struck: {point}={fault.value}")
    for broken in outcome.broken:
        print(f"  broken: {broken}")
    return 1 if outcome.broken else 0


def _sweep(visits: list[Visit], *, minutes: float | None, write: bool) -> int:
    table, cases, broken, started = Table(), 0, 0, time.monotonic()
    seconds = None if minutes is None else minutes * 60
    for outcome in sweep(visits, processes=os.cpu_count() or 1, seconds=seconds):
        cases += 1
        table.add(outcome)
        if outcome.broken:
            broken += 1
            print(f"{outcome}\n  " + "\n  ".join(outcome.broken), flush=True)
    summary = (
        f"{cases:,} of {len(visits):,} cases, {table.total:,} faults that struck, {broken} cases in which a promise "
        f"was broken ({time.monotonic() - started:,.0f} s)."
    )
    print(summary)
    if write:
        page = PAGE.read_text()
        head, rest = page.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{summary}\n\n{table.markdown()}\n\n{END}{rest.split(END)[1]}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
