"""The command line in processes of its own, beside real packages and a real daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import archive, declared

Cloaca = Callable[..., subprocess.CompletedProcess[str]]

CODE = """
import os, time
import cloaca

with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="first", retry_attempts=0)
    def first(context):
        print("in first")
        if context.get("fail"):
            raise ValueError("asked to fail")
        if context.get("die"):
            os._exit(3)
        context.set("n", 1)

    @cloaca.task(id="second", dependencies=["first"])
    async def second(context):
        time.sleep(context.get("sleep", 0))
        context.set("n", context["n"] + 1)

@cloaca.trigger(name="skipping", poll_interval="1s")
def skipping():
    print("polled")
    return cloaca.TriggerResult.skip("nothing there")

@cloaca.trigger(name="firing", poll_interval="1s")
def firing(config, state):
    state.set("seen", state.get("seen", 0) + 1)
    return [cloaca.TriggerResult.fire({"path": config["path"]}, key="k"), cloaca.TriggerResult.fire({})]

@cloaca.trigger(name="yielding", poll_interval="1s")
def yielding():
    yield cloaca.TriggerResult.fire({"a": 1}, key="a")
    open("went-on", "w")

@cloaca.trigger(name="raising", poll_interval="1s")
def raising():
    raise RuntimeError("no such inbox")

@cloaca.trigger(name="hanging", poll_interval="1s")
def hanging():
    time.sleep(600)

@cloaca.trigger(name="dying", poll_interval="1s")
def dying():
    os._exit(9)

@cloaca.trigger(name="wrong", poll_interval="1s")
def wrong():
    return "yes"
"""
TRIGGERS = ("skipping", "firing", "yielding", "raising", "hanging", "dying", "wrong")
TASKS = [
    {"id": "first", "function": "demo:first", "dependencies": []},
    {"id": "second", "function": "demo:second", "dependencies": ["first"]},
]


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """An archive whose triggers and tasks do whatever a test wants."""
    path = tmp_path / "demo-1.0.0.cloacina"
    triggers = [declared(name, config={"path": "/inbox"}) for name in TRIGGERS]
    path.write_bytes(archive(CODE, tasks=TASKS, triggers=triggers))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("CLOACINA_HOME", str(folder))
    return folder


@pytest.fixture
def cloaca(tmp_path: Path, home: Path) -> Cloaca:
    """Calls the command line in a folder of the test's own."""

    def call(*words: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cloaca.cli.main", *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout)

    return call


class Started:
    """A call of the command line that goes on."""

    def __init__(self, words: tuple[str, ...], folder: Path) -> None:
        self.log = folder / "daemon.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cloaca.cli.main", *words],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={**os.environ},
                start_new_session=True,
            )

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)
