"""A process that is killed right before or right after each of its commits: what was finished never runs again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloaca.resources import WorkflowRun
from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.resources.run import RunStatus
from cloaca.store import open_store

# Executes one run, new or resumed; kills itself at a commit, counted from 1. Each task writes its name to a file.
PROGRAM = """
import asyncio, os, signal, sys
import cloaca
from cloaca.engine.crew import Crew
from cloaca.engine.execute import Stop, Workshop, execute
from cloaca.engine.journal import StoreJournal
from cloaca.engine.slots import Slots
from cloaca.engine.timers import Timers
from cloaca.library.journal import NewRunJournal
from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.resources.recorded import RecordedStatus
from cloaca.resources.ref import DEFAULT_NAMESPACE
from cloaca.store import open_store

url, trace, side, number = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def say(name):
    with open(trace, "a") as file:
        file.write(name + "\\n")

with cloaca.WorkflowBuilder("chain") as builder:
    @cloaca.task(retry_attempts=0)
    def first(context):
        say("first")
        context.set("first", 1)

    @cloaca.task(dependencies=[first], retry_attempts=0)
    def second(context):
        say("second")
        context.set("second", context["first"] + 1)

    @cloaca.task(dependencies=[second], retry_attempts=0)
    def third(context):
        say("third")
        context.set("third", context["second"] + 1)

class Killing:
    waits = False
    commits = 0

    def __init__(self, store):
        self.store = store
        self.run_here = store.run_here

    def commit(self, write, *arguments):
        self.commits += 1
        if (side, number) == ("before", self.commits):
            os.kill(os.getpid(), signal.SIGKILL)
        written = write(*arguments)
        if (side, number) == ("after", self.commits):
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    def create_here(self, obj, status):
        return self.commit(self.store.create_here, obj, status)

    def record_here(self, *arguments):
        return self.commit(self.store.record_here, *arguments)

async def main():
    store = await open_store(url)
    killing = Killing(store)
    workflow = builder.build()
    run = store.run_here("run", DEFAULT_NAMESPACE)
    if run is None:
        claimed = RecordedStatus(attempt=1)
        made = WorkflowRun(metadata=ObjectMeta(name="run"), spec=RunSpec(workflow="chain"))
        journal = NewRunJournal(killing, made)
    elif run.status.phase.finished:
        print(killing.commits)
        await store.close()
        return
    else:
        claimed = run.status._replace(attempt=run.status.attempt + 1)
        journal = StoreJournal(killing, run)
    loop = asyncio.get_running_loop()
    workshop = Workshop(crew=Crew(), loop=loop, timers=Timers(loop), slots=Slots(4))
    await execute(workflow, {}, claimed, journal, workshop, Stop())
    print(killing.commits)
    await store.close()

asyncio.run(main())
"""

COMMITS = 4  # the run is there; one for each task but the last; the end
CHAIN = ("first", "second", "third")


def start(url: str, trace: Path, side: str = "never", number: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, url, str(trace), side, str(number)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


async def recorded(url: str) -> RunStatus | None:
    store = await open_store(url)
    run = await store.get(WorkflowRun, "run")
    await store.close()
    return None if run is None else run.status


async def test_a_run_in_peace_makes_the_commits_that_the_other_tests_count(url: str, tmp_path: Path) -> None:
    done = start(url, tmp_path / "trace")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{COMMITS}\n", "")
    assert (tmp_path / "trace").read_text().split() == list(CHAIN)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("number", range(1, COMMITS + 1))
async def test_killed_at_a_commit_finished_tasks_run_once_and_the_run_completes(
    url: str, side: str, number: int, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    killed = start(url, trace, side, number)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
    status = await recorded(url)
    finished = {task.id for task in status.tasks if task.phase is TaskPhase.COMPLETED} if status else set()
    # what is committed is what the kill point says, no more and no less
    committed = number if side == "after" else number - 1
    assert (status is not None, len(finished)) == (committed > 0, max(committed - 1, 0))
    begun = trace.read_text().split() if trace.exists() else []

    resumed = start(url, trace)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    status = await recorded(url)
    assert status is not None
    assert (status.phase, status.context) == (RunPhase.COMPLETED, {"first": 1, "second": 2, "third": 3})
    ran = trace.read_text().split()
    # finished tasks once; the one that was in flight again; the others once
    assert {name: ran.count(name) for name in CHAIN} == {
        name: 1 + (name in begun and name not in finished) for name in CHAIN
    }
