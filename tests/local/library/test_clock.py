"""Somebody sets the machine's clock under a program: its triggers and cron schedules go on, without burst or stall."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SHIFTED = Path(__file__).parents[1] / "daemon" / "shifted"
HOUR = 3600
PROGRAM = """
import sys, time
import cloaca

def say(what):
    print(what, time.monotonic(), flush=True)

with cloaca.WorkflowBuilder("tick"):
    @cloaca.task(id="tock")
    def tock(context):
        say("ran " + context["scheduled_time"])

with cloaca.WorkflowBuilder("never"):
    @cloaca.task(id="nothing")
    def nothing(context):
        pass

@cloaca.trigger(workflow="never", poll_interval="500ms")
def poll():
    say("polled -")
    return cloaca.TriggerResult.skip()

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    runner.register_cron_workflow("tick", "* * * * * *", "UTC", "skip")
    sys.stdin.read()
"""


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[float], list[list[str]]]:
    """What the program says while the clock is set by so many hours, one after the other, until each went on."""
    shift = tmp_path / "shift"

    def said(*steps: float) -> list[list[str]]:
        shift.write_text("0")
        environment = {**os.environ, "SHIFTED_CLOCK": str(shift), "PYTHONPATH": str(SHIFTED)}
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "runs.db")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        found: list[list[str]] = []
        with program:
            assert program.stdout is not None
            assert program.stdin is not None
            for hours in steps:
                shift.write_text(str(hours * HOUR))
                left = {"ran": 3, "polled": 3}
                while any(count > 0 for count in left.values()):
                    line = program.stdout.readline()
                    assert line, "the program ended"
                    found.append(line.split())
                    left[found[-1][0]] -= 1
            program.stdin.close()
            program.stdout.read()
        return found

    return said


def test_triggers_and_schedules_of_a_program_go_on_when_the_clock_is_set(
    lines: Callable[..., list[list[str]]],
) -> None:
    found = lines(0, 1, 0, -1, 0)
    polls = [float(line[-1]) for line in found if line[0] == "polled"]
    times = [line[1] for line in found if line[0] == "ran"]
    elapsed = float(found[-1][-1]) - float(found[0][-1])
    assert len({time[:13] for time in times}) >= 3  # the hours that the program saw
    assert len(set(times)) == len(times)  # no time twice
    assert len(times) <= elapsed + 10  # and none made up for an hour
    assert len(polls) <= elapsed / 0.25 + 2  # polls are half an interval apart or more
