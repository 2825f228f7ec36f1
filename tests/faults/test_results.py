"""What `make faults` keeps from one time to the next, and what it writes about it."""

from __future__ import annotations

from pathlib import Path

from faults.results import Results, digest, report
from faults.store import Fault, Point
from faults.sweep import Group
from faults.world import Case, Outcome

CREATE = (Point.parse("poller.create.WorkflowRun#2"), Fault.CRASH_AFTER)
STATUS = (Point.parse("run.write_status.WorkflowRun#1"), Fault.AWAY)
CASES = [Case(scenario="keyed", on=on, planned=(at,)) for on in ("memory", "postgres") for at in (CREATE, STATUS)]
GROUPS = [
    Group(on="memory", scenario="keyed", total=2, cases=CASES[:2]),
    Group(on="postgres", scenario="keyed", total=50, cases=CASES[2:]),
]


def test_a_case_that_is_known_is_known_the_next_time(tmp_path: Path) -> None:
    results = Results(tmp_path / "code.jsonl")
    results.add(Outcome(case=CASES[0], struck=[CREATE]))
    again = Results(tmp_path / "code.jsonl")
    assert [case in again for case in CASES] == [True, False, False, False]
    assert again.of(CASES) == results.of(CASES)


def test_the_report_says_how_many_of_how_many_and_where_what_struck(tmp_path: Path) -> None:
    results = Results(tmp_path / "code.jsonl")
    results.add(Outcome(case=CASES[0], struck=[CREATE]))
    results.add(Outcome(case=CASES[1], struck=[STATUS]))
    results.add(Outcome(case=CASES[2], struck=[CREATE], broken=["key a gave 2 runs"]))
    assert report(GROUPS, results).splitlines() == [
        "3 cases, 3 faults that struck, 1 cases in which a promise was broken (code code).",
        "",
        "| cases | SQLite in memory | PostgreSQL |",
        "|---|---:|---:|",
        "| keyed | 2 of 2 | 1 of 50, **1 broken** |",
        "| all | 2 of 2 | 1 of 50, **1 broken** |",
        "",
        "| component | call | " + " | ".join(fault.value for fault in Fault) + " |",
        "|---|---|" + "---:|" * len(Fault),
        "| poller | create WorkflowRun |  | **1 of 2 broken** |  |  |  |  |  |  |",
        "| run | write_status WorkflowRun |  |  |  | 1 |  |  |  |  |",
    ]


def test_other_code_is_judged_anew_and_other_tests_are_not(tmp_path: Path) -> None:
    (tmp_path / "cloaca").mkdir()
    (tmp_path / "tests/faults").mkdir(parents=True)
    (tmp_path / "cloaca/a.py").write_text("a = 1")
    before = digest(tmp_path)
    (tmp_path / "tests/faults/test_a.py").write_text("assert True")
    assert digest(tmp_path) == before
    (tmp_path / "cloaca/a.py").write_text("a = 2")
    assert digest(tmp_path) != before
