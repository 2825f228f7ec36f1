"""A real daemon is killed again and again while twenty triggers fire. `make faults` lets it blow for five minutes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from faults.storm.blow import blow
from faults.storm.judge import judge

from cloaca.resources import ObjectMeta, RunPhase, RunSpec, WorkflowRun
from cloaca.resources.run import RunStatus

SECONDS = 20.0
SEED = 20261125


async def test_in_a_storm_of_kills_no_run_is_lost_or_doubled_and_nothing_is_left_behind(tmp_path: Path) -> None:
    storm = await blow(tmp_path, seconds=SECONDS, seed=SEED)
    assert not storm.broken, f"{storm}\n" + "\n".join(storm.broken)
    assert storm.kills["daemon"] >= 5, storm
    assert storm.verdict.runs >= 20, storm


# --- the judge can say no


def line(what: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """One line about the fire ``t/number``, whose run is called ``run-number``."""
    said = {"what": what, "process": "1 born 1", "time": 0.0, "trigger": "t", "fire": f"t/{number}", "payload": number}
    if what == "fire":
        said["keyed"] = True
    if what in ("start", "end"):
        said["run"] = f"run-{number}"
    return {**said, **more}


def done(number: int = 0, **more: Any) -> list[dict[str, Any]]:
    """A whole run."""
    return [line(what, number, task=task, **more) for task in ("a", "b") for what in ("start", "end")]


CALL = line("call")
FORGETFUL_CALL = line("call", trigger="f")
FIRED = [CALL, line("fire"), *done()]
STARTED = [CALL, line("fire"), line("start", task="a"), line("end", task="a"), line("start", task="b")]
CASES = {
    "all is well": (FIRED, []),
    "a killed task starts again": ([*STARTED, line("start", task="b"), line("end", task="b")], []),
    "a key is lost": ([CALL, line("fire"), CALL], ["fire t/0 was lost"]),
    "a key dies with its process, and nothing comes of it": ([CALL, line("fire")], ["fire t/0 was lost"]),
    "a fire that is said once dies with its process": ([FORGETFUL_CALL, line("fire", trigger="f")], []),
    "a fire that is said once is lost, and its process lives": (
        [FORGETFUL_CALL, line("fire", trigger="f"), FORGETFUL_CALL],
        ["fire t/0 was lost"],
    ),
    "two runs": ([*FIRED, *done(run="other")], ["fire t/0 gave 2 runs: other, run-0"]),
    "a finished task again": (
        [*STARTED, line("start", task="a"), line("end", task="a"), line("end", task="b")],
        ["run run-0: task a started again after b had started"],
    ),
    "no end": (STARTED, ["run run-0 never came to the end of b"]),
    "another context": (
        [CALL, line("fire", payload=1), *done()],
        [f"run run-0: task {task} got another context than was fired" for task in ("a", "b")],
    ),
    "handed over too early": (
        [CALL, line("fire", keyed=False), line("after")],
        ["fire t/0 was lost", "the code after the yield of t/0 ran, and the fire has no run"],
    ),
    "overlap": (
        [CALL, line("fire"), line("fire", 1), *done()[:2], *done(1), *done()[2:]],
        ["runs run-0 and run-1 overlap"] * 4,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_judge_says(case: str) -> None:
    lines, broken = CASES[case]
    assert list(verdict(lines)) == broken


@pytest.mark.parametrize(
    ("status", "broken"),
    [
        ({"phase": RunPhase.COMPLETED}, []),
        ({"phase": RunPhase.DEDUPLICATED}, []),
        ({"phase": RunPhase.RUNNING}, ["run run-0 is Running: None"]),
        (
            {"phase": RunPhase.COMPLETED, "finished_at": datetime(1969, 12, 31, tzinfo=timezone.utc)},
            [f"run run-0: task {task} started after the run had ended" for task in ("a", "b")],
        ),
    ],
    ids=["completed", "deduplicated", "running", "started after its end"],
)
def test_what_the_judge_says_of_a_run_in_the_store(status: dict[str, Any], broken: list[str]) -> None:
    spec = RunSpec(workflow="demo", context={"fire": "t/0"})
    run = WorkflowRun(metadata=ObjectMeta(name="run-0"), spec=spec, status=RunStatus(**status))
    assert list(verdict(FIRED, (run,))) == broken


def verdict(lines: Sequence[dict[str, Any]], runs: Sequence[WorkflowRun] = ()) -> tuple[str, ...]:
    # each line is an object of its own, as lines read from a file are
    return judge([dict(line) for line in lines], runs, tasks=("a", "b"), alone={"t"}, forgetful={"f"}).broken
