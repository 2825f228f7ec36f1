"""``cloaca run PATH``: a workflow here and now, in a process of its own on a throw-away store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import archive

Cloaca = Callable[..., Any]


def test_a_workflow_of_an_archive_runs_without_a_daemon(cloaca: Cloaca, demo: Path, home: Path) -> None:
    said = cloaca("run", demo, "demo", "--context", '{"x": 1}')
    lines = said.stdout.splitlines()
    assert (said.returncode, said.stderr) == (0, "in first\n")
    assert lines[0] == "demo of demo 1.0.0"
    assert [line.split()[:2] for line in lines if "  Completed" in line] == [
        ["first", "Completed"],
        ["second", "Completed"],
    ]
    end = next(index for index, line in enumerate(lines) if line.startswith("Completed in "))
    assert json.loads("\n".join(lines[end + 1 :])) == {"x": 1, "n": 2}
    assert not home.exists()


def test_a_task_that_fails_fails_the_command(cloaca: Cloaca, demo: Path) -> None:
    said = cloaca("run", demo, "--context", '{"fail": true}')
    lines = said.stdout.splitlines()
    assert said.returncode == 1
    assert lines[-2].split() == ["second", "Skipped", "skipped:", "task", "'first'", "did", "not", "complete"]
    assert lines[-1].startswith("Failed in ")
    assert lines[-1].endswith(": task 'first' failed: ValueError: asked to fail")
    assert 'File "demo/__init__.py", line 10, in first' in said.stderr


def test_a_task_that_ends_its_process_is_said(cloaca: Cloaca, demo: Path) -> None:
    said = cloaca("run", demo, "--context", '{"die": true}')
    assert (said.returncode, said.stderr) == (
        1,
        "in first\nError: the process of the run ended (exit code 3) before the run did\n",
    )


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        pytest.param(
            "1 / 0\ndef only(context): pass",
            "importing 'demo' failed: ZeroDivisionError: division by zero (demo/__init__.py:1)",
            id="import raises",
        ),
        pytest.param(
            "import os\nos._exit(4)\ndef only(context): pass",
            "the import ended its process (exit code 4) without an answer",
            id="import dies",
        ),
        pytest.param(
            "def only(context): pass", "package 'demo' has 0 workflows: say which one to run: none", id="no workflow"
        ),
    ],
)
def test_a_package_that_cannot_run_says_why(code: str, sentence: str, cloaca: Cloaca, tmp_path: Path) -> None:
    path = tmp_path / "bad-1.0.0.cloacina"
    path.write_bytes(archive(code))
    said = cloaca("run", path)
    assert (said.returncode, said.stdout, said.stderr) == (1, "", f"Error: {sentence}\n")


def test_an_interrupt_ends_the_run_and_its_process(demo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cloaca.cli.main", "run", str(demo), "--context", '{"sleep": 60}']
    environment = {**os.environ, "INTERRUPTED_RUN_OF": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        while "second" not in (line := process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert eventually_gone(f"INTERRUPTED_RUN_OF={tmp_path}")


def eventually_gone(variable: str) -> bool:
    """Whether soon no process has that in its environment."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not any(variable.encode() in environment(folder) for folder in Path("/proc").iterdir()):
            return True
        time.sleep(0.02)
    return False


def environment(folder: Path) -> list[bytes]:
    try:
        return (folder / "environ").read_bytes().split(b"\0") if folder.name.isdigit() else []
    except OSError:
        return []
