"""The policy Replace: a new fire ends the run before it, and starts when that has ended. Never two at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from builders import archive, declared
from daemon_process import Daemon

from cloaca.resources import ObjectMeta, RunPhase, Trigger, TriggerSpec, WorkflowRun
from cloaca.resources.trigger import ConcurrencyPolicy, PackageReference

# A run holds a lock for as long as its process works on it: one that finds it taken says that two ran at once.
CODE = """
import asyncio, fcntl, os, pathlib, time
import cloaca

FOLDER = pathlib.Path(os.environ["REPLACE_FOLDER"])

def alone():
    lock = (FOLDER / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (FOLDER / "two at once").touch()
        raise
    return lock

with cloaca.WorkflowBuilder("demo") as builder:
    {task}

@cloaca.trigger(name="form", poll_interval="100ms")
def form():
    for number in (1, 2, 3, 4):
        if (FOLDER / f"fire {number}").exists():
            yield cloaca.TriggerResult.fire({"n": number}, key=str(number))
"""
ASYNC = """@cloaca.task(id="only", retry_attempts=0)
    async def only(context):
        with alone():
            try:
                while not (FOLDER / "end").exists():
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                await asyncio.sleep(0.2)  # it takes its time to leave
                raise
"""
SYNC = """@cloaca.task(id="only", retry_attempts=0)
    def only(context):
        with alone():
            while not (FOLDER / "end").exists():
                time.sleep(0.01)
"""


@pytest.mark.parametrize("task", [pytest.param(ASYNC, id="async task"), pytest.param(SYNC, id="sync task")])
async def test_a_new_fire_ends_the_run_before_it_and_starts_after_its_end(
    daemon: Daemon, tmp_path: Path, task: str
) -> None:
    daemon.environment["REPLACE_FOLDER"] = str(tmp_path)
    daemon.start()
    await daemon.eventually("the store", lambda store: asyncio.sleep(0, True))
    await daemon.submit(
        Trigger(
            metadata=ObjectMeta(name="demo-form"),
            spec=TriggerSpec(
                package_ref=PackageReference(name="demo"),
                name="form",
                concurrency_policy=ConcurrencyPolicy.REPLACE,
                failed_runs_history_limit=10,  # cancelled ones count as such, and shall all be seen
            ),
        )
    )
    code = CODE.replace("{task}", task)
    daemon.deploy(archive(code, triggers=[declared("form", poll_interval="100ms", allow_concurrent=True)]))
    (tmp_path / "fire 1").touch()
    await daemon.runs(lambda runs: phases(runs) == {"1": RunPhase.RUNNING})
    (tmp_path / "fire 2").touch()
    runs = await daemon.runs(lambda runs: phases(runs) == {"1": RunPhase.CANCELLED, "2": RunPhase.RUNNING})
    first, second = (by_key(runs)[key].status for key in ("1", "2"))
    assert first.finished_at is not None
    assert second.started_at is not None
    assert first.finished_at <= second.started_at
    (tmp_path / "fire 3").touch()
    (tmp_path / "fire 4").touch()
    wanted = {**dict.fromkeys(("1", "2", "3"), RunPhase.CANCELLED), "4": RunPhase.RUNNING}
    await daemon.runs(lambda runs: phases(runs) == wanted)
    (tmp_path / "end").touch()
    await daemon.runs(lambda runs: phases(runs) == {**wanted, "4": RunPhase.COMPLETED})
    assert not (tmp_path / "two at once").exists()


def by_key(runs: tuple[WorkflowRun, ...]) -> dict[str, WorkflowRun]:
    return {run.spec.key or "": run for run in runs}


def phases(runs: tuple[WorkflowRun, ...]) -> dict[str, RunPhase]:
    return {key: run.status.phase for key, run in by_key(runs).items()}
