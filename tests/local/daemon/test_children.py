"""What a run starts is gone with it, whichever of our processes dies; what an import takes for itself is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from builders import WORKFLOW, archive
from daemon_process import PATIENCE, Daemon

from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.resources.trigger import PackageReference

LONG = """
import os, pathlib, subprocess, time
import cloaca

FOLDER = pathlib.Path(os.environ["FOLDER"])

with cloaca.WorkflowBuilder("demo"):
    @cloaca.task(id="only", retry_attempts=0)
    def only(context):
        orphan = subprocess.check_output(["sh", "-c", "sleep 2 >/dev/null & echo $!"], text=True)
        child = subprocess.Popen(["sleep", "600"])
        (FOLDER / "new").write_text(f"{os.getppid()} {orphan.strip()} {child.pid}")
        (FOLDER / "new").rename(FOLDER / "started")
        time.sleep(600)
"""


def by_hand() -> WorkflowRun:
    spec = RunSpec(workflow="demo", package_ref=PackageReference(name="demo"), backoff_limit=1)
    return WorkflowRun(metadata=ObjectMeta(name="by-hand"), spec=spec)


def parent_of(pid: int) -> int | None:
    """None: there is no such process, not even a zombie."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


async def until(what: str, look: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not look():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("killed", ["the daemon", "the first zygote", "the zygote of the package", "the run"])
async def test_what_a_task_started_ends_when_a_process_above_it_is_killed(
    daemon: Daemon, tmp_path: Path, killed: str
) -> None:
    daemon.environment["FOLDER"] = str(tmp_path)
    daemon.start()
    daemon.deploy(archive(LONG))
    await daemon.package(Ready=("True", "Ready"))
    await daemon.submit(by_hand())
    await until("the task", (tmp_path / "started").exists)
    zygote, orphan, child = map(int, (tmp_path / "started").read_text().split())
    run, nursery = parent_of(child), parent_of(zygote)
    assert (run, nursery) != (None, None)
    assert parent_of(orphan) in (zygote, None), "its zygote adopts it"
    await until("the orphan's end, and that it is reaped", lambda: parent_of(orphan) is None)

    victim = {"the daemon": daemon.process.pid if daemon.process else 0, "the first zygote": nursery}
    os.kill(victim.get(killed, zygote if "zygote" in killed else run) or 0, signal.SIGKILL)

    await until("the end of what the task started", lambda: parent_of(child) is None)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param(
            "import socket\nserver = socket.create_server(('127.0.0.1', 0))\nPORT = server.getsockname()[1]",
            "importing 'demo' takes port ",
            id="a port",
        ),
        pytest.param(
            "import fcntl\nlocked = open(FILE, 'w')\nfcntl.flock(locked, fcntl.LOCK_EX)",
            "importing 'demo' takes the lock of ",
            id="a lock",
        ),
    ],
)
async def test_an_import_that_takes_what_only_one_process_can_have_is_refused(
    daemon: Daemon, tmp_path: Path, code: str, words: str
) -> None:
    daemon.start()
    daemon.deploy(archive(WORKFLOW + code.replace("FILE", repr(str(tmp_path / "lock")))))
    package = await daemon.package(Ready=("False", "ImportFailed"))
    assert any(words in condition.message for condition in package.status.conditions), package.status.conditions


async def test_a_process_that_cannot_import_its_package_again_says_why(daemon: Daemon, tmp_path: Path) -> None:
    """A package that starts a thread is imported by each of its processes."""
    daemon.environment["FOLDER"] = str(tmp_path)
    code = "import pathlib, threading\n(pathlib.Path(os.environ['FOLDER']) / 'once').mkdir()\n"
    thread = "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
    daemon.start()
    daemon.deploy(archive(WORKFLOW + code + thread))
    await daemon.package(Ready=("True", "Ready"))
    await daemon.submit(by_hand())
    (run,) = await daemon.runs(lambda runs: any(it.status.phase.finished for it in runs))
    words = "importing 'demo' failed: FileExistsError"
    assert words in str(run.status), run.status
    assert words in daemon.home.run_log("by-hand", "default").read_text()


async def test_a_daemon_whose_standard_streams_are_closed_works(daemon: Daemon) -> None:
    daemon.close_streams = True
    daemon.start()
    daemon.deploy(archive(WORKFLOW + "print('imported')\n"))
    await daemon.package(Ready=("True", "Ready"))
    await daemon.submit(by_hand())
    (run,) = await daemon.runs(lambda runs: any(it.status.phase.finished for it in runs))
    assert run.status.phase.value == "Completed", run.status
