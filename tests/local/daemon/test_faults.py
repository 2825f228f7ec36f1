"""What the daemon does when things die, fill up or are not allowed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import ObjectMeta, RunPhase, RunSpec, WorkflowRun
from cloaca.resources.trigger import PackageReference

TWO_TASKS = """
import os, time
import cloaca

MARKS = os.environ["MARKS"]

def mark(name):
    with open(MARKS, "a") as marks:
        marks.write(name + "\\n")

with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="first")
    def first(context):
        mark("first")
        context.set("first", os.getpid())

    @cloaca.task(id="second", dependencies=["first"])
    def second(context):
        mark("second started")
        deadline = time.time() + 60
        while not os.path.exists(MARKS + ".go") and time.time() < deadline:
            time.sleep(0.02)
        mark("second")
"""
TASKS = [
    {"id": "first", "function": "demo:first", "dependencies": []},
    {"id": "second", "function": "demo:second", "dependencies": ["first"]},
]


def submitted() -> WorkflowRun:
    return WorkflowRun(
        metadata=ObjectMeta(name="by-hand"), spec=RunSpec(workflow="demo", package_ref=PackageReference(name="demo"))
    )


async def started_in_the_second_task(daemon: Daemon, marks: Path) -> None:
    daemon.environment["MARKS"] = str(marks)
    daemon.deploy(archive(TWO_TASKS, tasks=TASKS))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    await daemon.submit(submitted())
    deadline = time.monotonic() + 20
    while not (marks.exists() and "second started" in marks.read_text()):
        assert time.monotonic() < deadline, daemon.log
        await asyncio.sleep(0.01)


async def test_after_sigkill_in_the_middle_of_a_run_it_completes_and_finished_tasks_have_run_once(
    anywhere: Daemon, tmp_path: Path
) -> None:
    daemon = anywhere
    marks = tmp_path / "marks"
    await started_in_the_second_task(daemon, marks)
    daemon.kill()
    Path(f"{marks}.go").touch()
    daemon.start()
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert run.status.phase is RunPhase.COMPLETED
    assert marks.read_text().splitlines() == ["first", "second started", "second started", "second"]
    assert (run.status.attempt, run.status.failures) == (2, 0)
    assert daemon.stop() == 0
    assert not daemon.home.database.exists() or integrity(daemon.home.database) == "ok"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_lets_runs_end(daemon: Daemon, tmp_path: Path, number: int) -> None:
    marks = tmp_path / "marks"
    await started_in_the_second_task(daemon, marks)
    assert daemon.process is not None
    daemon.process.send_signal(number)
    await asyncio.sleep(0.3)
    assert daemon.process.poll() is None
    Path(f"{marks}.go").touch()
    assert daemon.process.wait(20) == 0
    assert marks.read_text().splitlines() == ["first", "second started", "second"]


async def test_a_drain_that_takes_too_long_interrupts_runs_which_go_on_after_the_next_start(
    daemon: Daemon, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    daemon.home.root.mkdir()
    daemon.home.config.write_text('drain = "300ms"\n')
    await started_in_the_second_task(daemon, marks)
    assert daemon.stop() == 0
    Path(f"{marks}.go").touch()
    daemon.start()
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert run.status.phase is RunPhase.COMPLETED
    assert marks.read_text().splitlines() == ["first", "second started", "second started", "second"]
    assert run.status.failures == 0


async def test_a_second_sigint_leaves_at_once(daemon: Daemon, tmp_path: Path) -> None:
    await started_in_the_second_task(daemon, tmp_path / "marks")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.3)
    before = time.monotonic()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(5) == 130
    assert time.monotonic() - before < 5


async def test_a_second_daemon_on_one_home_is_refused(daemon: Daemon) -> None:
    daemon.start()
    await daemon.eventually("the store", lambda store: asyncio.sleep(0, True))
    assert daemon.process is not None
    first = daemon.process
    other = Daemon(daemon.home.root)
    other.start()
    assert other.process is not None
    assert other.process.wait(20) == 1
    assert f"a daemon (process {first.pid}) runs on" in daemon.log
    assert first.poll() is None


async def test_sighup_reads_the_settings_again(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start()
    await daemon.eventually("the store", lambda store: asyncio.sleep(0, True))
    other = tmp_path / "other"
    other.mkdir()
    (other / "demo-1.0.0.cloacina").write_bytes(archive(WORKFLOW))
    daemon.home.config.write_text(f'watch_dirs = ["{other}"]\n')
    deadline = time.monotonic() + 10
    while "ready" not in daemon.log:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.package(Ready=("True", "Ready"))


async def test_a_faulty_config_file_is_refused_with_every_fault(daemon: Daemon) -> None:
    daemon.home.root.mkdir()
    daemon.home.config.write_text('max_runs = 0\ndrian = "3s"\n')
    daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait(20) == 1
    assert "max_runs: is 0" in daemon.log
    assert "unknown setting 'drian'" in daemon.log
    assert "Traceback" not in daemon.log


async def test_a_read_only_home_is_a_clear_error(daemon: Daemon, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system read-only")
    daemon.home.root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,mode=0700", "tmpfs", str(daemon.home.root)], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        started = subprocess.run(
            [sys.executable, "-m", "cloacina_operator.hosts.daemon", "--home", str(daemon.home.root)],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
    finally:
        subprocess.run(["umount", str(daemon.home.root)], check=True)
    assert started.returncode == 1
    assert started.stderr.count("\n") == 1
    assert f"the home {daemon.home.root} cannot be used" in started.stderr


async def test_a_full_disk_is_said_clearly_and_work_goes_on_when_there_is_room(daemon: Daemon, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    daemon.home.root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(daemon.home.root)], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    daemon.options = ["--watch-dir", str(incoming)]
    try:
        daemon.start()
        await daemon.eventually("the store", lambda store: asyncio.sleep(0, True))
        ballast = daemon.home.root / "ballast"
        fill_up(ballast)
        (incoming / "demo-1.0.0.cloacina").write_bytes(archive(WORKFLOW + "#" + os.urandom(50_000).hex()))
        deadline = time.monotonic() + 20
        while "disk is full" not in daemon.log:
            assert time.monotonic() < deadline, daemon.log
            await asyncio.sleep(0.05)
        assert daemon.process is not None
        assert daemon.process.poll() is None
        assert "Traceback" not in daemon.log
        ballast.unlink()
        await daemon.package(Ready=("True", "Ready"))
        assert daemon.stop() == 0
        assert integrity(daemon.home.database) == "ok"
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()
        subprocess.run(["umount", "-l", str(daemon.home.root)], check=True)


def fill_up(path: Path) -> None:
    """Write until there is no room for one more byte."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (65_536, 4_096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, b"x" * size)
    finally:
        os.close(descriptor)


def integrity(database: Path) -> str:
    """What SQLite's own check says."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


async def test_a_file_that_was_bad_and_is_replaced_becomes_ready(daemon: Daemon) -> None:
    daemon.start()
    daemon.deploy(b"")
    await daemon.package(Ready=("False", "ArchiveInvalid"))
    daemon.deploy(archive(WORKFLOW))
    package = await daemon.package(Ready=("True", "Ready"))
    assert [entry.accepted for entry in package.status.history] == [True, False]


async def test_a_bad_update_leaves_the_old_version_polling_and_says_why(daemon: Daemon) -> None:
    code = (
        WORKFLOW
        + """
@cloaca.trigger(name="tick", poll_interval="200ms", allow_concurrent=True)
def tick():
    return cloaca.TriggerResult.fire()
"""
    )
    triggers = [declared("tick", allow_concurrent=True)]
    daemon.deploy(archive(code, triggers=triggers))
    daemon.start()
    good = await daemon.package(Ready=("True", "Ready"))
    daemon.deploy(archive(code, version="1.1.0", triggers=[declared("tock")]), "demo-1.1.0.cloacina")
    package = await daemon.package(Ready=("False", "CandidateRefused"), Polling=("True", "Polling"))
    assert package.status.active == good.status.active
    assert package.status.candidate is not None
    before = (await daemon.trigger("demo-tick", lambda it: it.status.sequence > 0)).status.sequence
    await daemon.trigger("demo-tick", lambda it: it.status.sequence > before + 1)  # old runs are collected: count fires
    daemon.deploy(archive(code, version="1.2.0", triggers=triggers), "demo-1.2.0.cloacina")
    package = await daemon.package(Ready=("True", "Ready"))
    assert package.status.active is not None
    assert package.status.active.version == "1.2.0"
    await daemon.runs(lambda runs: any(run.spec.digest == package.status.active.digest for run in runs))
