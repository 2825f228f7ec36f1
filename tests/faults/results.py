"""Keeps what came of cases from one `make faults` to the next, for as long as the code is the same, and counts it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from faults.store import Fault, Point
from faults.sweep import Group
from faults.world import Case, Outcome

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".faults"
JUDGED = ("cloaca", "operator", "tests/faults")  # what has an influence on an outcome
NAMES = {"memory": "SQLite in memory", "file": "SQLite file", "postgres": "PostgreSQL", "kubernetes": "API server"}


class Results:
    """What is known of cases, in a file: one line of JSON a case."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.code = path.stem
        self._known: dict[str, Mapping[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                known = json.loads(line)
                self._known[known["case"]] = known

    @classmethod
    def of_this_code(cls) -> Results:
        """Those of the code as it is now; of other code nothing is known."""
        KEPT.mkdir(exist_ok=True)
        return cls(KEPT / f"{digest(ROOT)}.jsonl")

    def __contains__(self, case: Case) -> bool:
        return str(case) in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, outcome: Outcome) -> None:
        """Keep it."""
        struck = [[str(point), fault.value] for point, fault in outcome.struck]
        known = {"case": str(outcome.case), "struck": struck, "broken": outcome.broken}
        self._known[known["case"]] = known
        with self._path.open("a") as file:
            file.write(json.dumps(known) + "\n")

    def of(self, cases: Iterable[Case]) -> list[Mapping[str, Any]]:
        """What is known of those ``cases``."""
        return [self._known[str(case)] for case in cases if case in self]


def digest(root: Path) -> str:
    """Of the code that is judged, and of the code that judges."""
    found = hashlib.sha256()
    files = (path for folder in JUDGED for path in (root / folder).rglob("*") if path.suffix in (".py", ".sql"))
    for path in sorted(path for path in files if not path.name.startswith("test_")):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def report(groups: Sequence[Group], results: Results) -> str:
    """How many cases of how many there are were visited, and what struck where. Markdown."""
    known = [one for group in groups for one in results.of(group.cases)]
    broken = sum(bool(one["broken"]) for one in known)
    struck = sum(len(one["struck"]) for one in known)
    return (
        f"{len(known):,} cases, {struck:,} faults that struck, {broken:,} cases in which a promise was broken "
        f"(code {results.code}).\n\n"
        f"{_visited(groups, results)}\n\n{_struck(known)}"
    )


def _visited(groups: Sequence[Group], results: Results) -> str:
    """A row a scenario, a column a store."""
    stores = [name for name in NAMES if any(group.on == name for group in groups)]
    by_place = {(group.scenario, group.on): group for group in groups}
    lines = [
        "| cases | " + " | ".join(NAMES[name] for name in stores) + " |",
        "|---|" + "---:|" * len(stores),
    ]
    for scenario in dict.fromkeys(group.scenario for group in groups):
        cells = [_of_all(by_place.get((scenario, name)), results) for name in stores]
        lines.append(f"| {scenario or 'combinations of two to four faults'} | " + " | ".join(cells) + " |")
    sums = [_sum([group for group in groups if group.on == name], results) for name in stores]
    lines.append("| all | " + " | ".join(sums) + " |")
    return "\n".join(lines)


def _of_all(group: Group | None, results: Results) -> str:
    return "" if group is None else _sum([group], results)


def _sum(groups: Sequence[Group], results: Results) -> str:
    known = [one for group in groups for one in results.of(group.cases)]
    broken = sum(bool(one["broken"]) for one in known)
    said = f"{len(known):,} of {sum(group.total for group in groups):,}"
    return f"{said}, **{broken:,} broken**" if broken else said


def _struck(known: Iterable[Mapping[str, Any]]) -> str:
    """A row a call, a column a fault; a cell is how often it struck there, or ``broken of struck``."""
    visited: Counter[tuple[str, Fault]] = Counter()
    broken: Counter[tuple[str, Fault]] = Counter()
    for one in known:
        for text, value in one["struck"]:
            point, fault = Point.parse(text), Fault(value)
            where = (f"{point.component} | {point.call} {point.kind}", fault)
            visited[where] += 1
            broken[where] += bool(one["broken"])
    columns = list(Fault)
    lines = [
        "| component | call | " + " | ".join(fault.value for fault in columns) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for row in sorted({row for row, _ in visited}):
        cells = [_cell(visited[row, fault], broken[row, fault]) for fault in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(visited: int, broken: int) -> str:
    if not visited:
        return ""
    return f"**{broken} of {visited} broken**" if broken else f"{visited:,}"
