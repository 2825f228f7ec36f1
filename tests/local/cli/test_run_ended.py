"""`cloaca run` that is ended by SIGTERM takes along what its tasks started."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

MODULE = """
import pathlib, subprocess, sys, time
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context):
        child = subprocess.Popen(["sleep", "600"])
        pathlib.Path(PID).write_text(str(child.pid))
        time.sleep(600)
"""
PROJECT = '[project]\nname = "p"\nversion = "1.0.0"\n[tool.cloaca]\nentry_module = "p"\n'


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_what_its_tasks_started_is_gone_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    (tmp_path / "p" / "p").mkdir(parents=True)
    (tmp_path / "p" / "p" / "__init__.py").write_text(MODULE.replace("PID", repr(str(pid))))
    (tmp_path / "p" / "pyproject.toml").write_text(PROJECT)
    cloaca = str(Path(sys.executable).with_name("cloaca"))
    with subprocess.Popen(
        [cloaca, "run", "p"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        deadline = time.monotonic() + 60.0
        while not pid.exists() or not pid.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child = int(pid.read_text())
        assert alive(child)
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 128 + signal.SIGTERM
    while alive(child):
        assert time.monotonic() < deadline + 60.0
        time.sleep(0.05)
