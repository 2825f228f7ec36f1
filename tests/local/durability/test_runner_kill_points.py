"""Programs with a DefaultRunner that are killed at each commit, in recovery too: the next one ends what they began."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloaca.resources import WorkflowRun
from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.store import open_store

# Forks a program for each line that it reads, and tells how that ended. A program kills itself right before or right
# after its commit number N. "fan" executes a workflow whose branches end one by one, each once the end of the one
# before is recorded, so that each has a commit of its own; "trigger" lets a trigger fire two keys; "recover" does
# neither. All end when no run is left unfinished. Tasks write down that they began.
PROGRAMS = """
import asyncio, contextlib, json, os, signal, sys, threading, traceback
import cloaca
import cloaca.library.runner as library
from cloaca.resources import WorkflowRun
from cloaca.resources.phases import TaskPhase
from cloaca.resources.recorded import read_status
from cloaca.store import open_store
import cloaca.library.runner, cloaca.store.sql.postgres

def program(url, trace, mode, side, number):
    recorded, news = 0, threading.Condition()

    def say(name):
        with open(trace, "a") as file:
            file.write(name + "\\n")

    class Killing:
        waits = False

        def __init__(self, store):
            self.store = store
            self.commits = 0

        def __getattr__(self, name):
            return getattr(self.store, name)

        @contextlib.contextmanager
        def point(self):
            with news:
                self.commits += 1
                mine = self.commits
            if (side, number) == ("before", mine):
                os.kill(os.getpid(), signal.SIGKILL)
            yield
            if (side, number) == ("after", mine):
                os.kill(os.getpid(), signal.SIGKILL)

        async def commit(self, write, *arguments):
            with self.point():
                written = await write(*arguments)
            return self.note(written)

        def commit_here(self, write, *arguments):
            with self.point():
                written = write(*arguments)
            self.heard(read_status(json.loads(arguments[-1])))
            return written

        def note(self, written):
            if isinstance(written, WorkflowRun):
                self.heard(written.status)
            return written

        def heard(self, status):
            nonlocal recorded
            with news:
                recorded = sum(task.phase is TaskPhase.COMPLETED for task in status.tasks)
                news.notify_all()

        async def run(self, *arguments):
            return await self.store.run(*arguments)

        def run_here(self, *arguments):
            return self.store.run_here(*arguments)

        def create_here(self, *arguments):
            return self.commit_here(self.store.create_here, *arguments)

        def record_here(self, *arguments):
            return self.commit_here(self.store.record_here, *arguments)

        async def create(self, obj):
            return await self.commit(self.store.create, obj)

        async def update(self, obj):
            return await self.commit(self.store.update, obj)

        async def write_status(self, obj):
            return await self.commit(self.store.write_status, obj)

        async def delete(self, ref, uid=None):
            return await self.commit(self.store.delete, ref, uid)

    async def open_killing(url):
        return Killing(await open_store(url))

    library.open_store = open_killing

    with cloaca.WorkflowBuilder("fan"):
        @cloaca.task(retry_attempts=0)
        def root(context):
            say("root")
            context["root"] = 1

        def branch(number):
            @cloaca.task(id=f"branch-{number}", dependencies=[root], retry_attempts=0)
            def branch(context):
                say(f"branch-{number}")
                with news:
                    assert news.wait_for(lambda: recorded > number, 60)
                context["ends"] = [number]
            return branch

        @cloaca.task(dependencies=[branch(number) for number in range(3)], retry_attempts=0)
        def join(context):
            say("join")
            context["join"] = context["root"] + 1

    with cloaca.WorkflowBuilder("ingest"):
        @cloaca.task(retry_attempts=0)
        def take(context):
            say(context["file"])

    fired = threading.Event()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms" if mode == "trigger" else "1h")
    def inbox():
        if mode == "trigger":
            for name in ("a", "b"):
                yield cloaca.TriggerResult.fire({"file": name}, key=name)
            fired.set()

    async def ended():
        store = await open_store(url)
        async with store.changes() as changes:
            while not all(run.status.phase.finished for run in await store.list(WorkflowRun)):
                await changes.__anext__()
        await store.close()

    with cloaca.DefaultRunner(url) as runner:
        if mode == "fan":
            assert runner.execute("fan", {"given": 0}).status == "Completed"
        if mode == "trigger":
            assert fired.wait(60)
        asyncio.run(ended())

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            program(*json.loads(line))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

FAN = {"root", "branch-0", "branch-1", "branch-2", "join"}
KEYS = {"a", "b"}
CONTEXT = {"given": 0, "root": 1, "ends": [0, 1, 2], "join": 2}
COMMITS = 7  # at least: sign of life, the run, its root, two branches, the end, the sign of life again


@dataclass(frozen=True, kw_only=True)
class Process:
    """What one program did."""

    killed: bool
    began: list[str]  # tasks


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What one finds in the database."""

    phases: list[RunPhase]
    finished: set[str]  # tasks, of the run that executes them; of a trigger's runs: their keys
    contexts: list[dict[str, object] | None]


class Programs:
    """Starts programs, one after the other: forks of a process that has imported what they need."""

    def __init__(self, nursery: subprocess.Popen[str], folder: Path) -> None:
        self._nursery = nursery
        self._folder = folder

    def start(self, url: str, mode: str, side: str = "never", number: int = 0) -> Process:
        trace = self._folder / f"trace-{len(list(self._folder.glob('trace-*')))}"
        trace.touch()
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps([url, str(trace), mode, side, number]) + "\n")
        self._nursery.stdin.flush()
        code = int(self._nursery.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        return Process(killed=code != 0, began=trace.read_text().split())


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAMS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nursery:
        yield Programs(nursery, tmp_path)
        assert nursery.stdin is not None
        nursery.stdin.close()
        assert nursery.wait(60) == 0


async def recorded(url: str) -> Recorded:
    store = await open_store(url)
    try:
        runs = await store.list(WorkflowRun)
    finally:
        await store.close()
    finished = {
        run.spec.key or task.id for run in runs for task in run.status.tasks if task.phase is TaskPhase.COMPLETED
    }
    return Recorded(
        phases=[run.status.phase for run in runs], finished=finished, contexts=[run.status.context for run in runs]
    )


def began_what_was_left(process: Process, before: Recorded, everything: set[str]) -> bool:
    """Whether a program that came to the end began what was not recorded as finished, each once, and nothing else."""
    return not process.killed and sorted(process.began) == sorted(everything - before.finished)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_fan_killed_at_any_commit_is_ended_by_the_next_runner(
    fresh: Callable[[], str], side: str, programs: Programs
) -> None:
    for number in itertools.count(1):
        url = fresh()
        first = programs.start(url, "fan", side, number)
        before = await recorded(url)
        assert len(first.began) == len(set(first.began))
        if not first.killed:
            break
        assert before.finished <= set(first.began)

        second = programs.start(url, "recover")
        after = await recorded(url)
        if before.phases:  # the run was durable
            assert began_what_was_left(second, before, FAN), (number, first, before, second)
            assert (after.phases, after.contexts) == ([RunPhase.COMPLETED], [CONTEXT])
        else:
            assert (second.began, after.phases) == ([], [])
    assert number > COMMITS


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_runner_killed_at_any_commit_of_its_recovery_leaves_the_run_to_the_next(
    fresh: Callable[[], str], side: str, programs: Programs
) -> None:
    for number in itertools.count(1):
        url = fresh()
        first = programs.start(url, "fan", "after", 4)  # a part of the branches was recorded
        between = await recorded(url)
        assert first.killed
        assert "root" in between.finished < FAN

        second = programs.start(url, "recover", side, number)
        before = await recorded(url)
        assert not set(second.began) & between.finished
        assert len(second.began) == len(set(second.began))
        if not second.killed:
            assert began_what_was_left(second, between, FAN)
            break

        third = programs.start(url, "recover")
        after = await recorded(url)
        assert began_what_was_left(third, before, FAN), (number, first, between, second, before, third)
        assert (after.phases, after.contexts) == ([RunPhase.COMPLETED], [CONTEXT])
    assert number > 5  # sign of life, taking over, a branch, the end, the sign of life again


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_key_gives_one_run_whichever_commit_its_program_is_killed_at(
    fresh: Callable[[], str], side: str, programs: Programs
) -> None:
    for number in itertools.count(1):
        url = fresh()
        first = programs.start(url, "trigger", side, number)
        before = await recorded(url)
        second = programs.start(url, "trigger")
        after = await recorded(url)

        assert began_what_was_left(second, before, KEYS), (number, first, before, second)
        assert (after.phases, after.finished) == ([RunPhase.COMPLETED] * 2, KEYS)
        if not first.killed:
            break
    assert number > COMMITS
