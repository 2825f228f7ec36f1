"""What is read of another implementation's figures, and which interpreter ``make`` builds the environment with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from bench.peer import answer

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        pytest.param('{"a": 1}\n', '{"a": 1}', id="alone"),
        pytest.param('warm up\n{"a": 1}\nrunner stopped\n', '{"a": 1}', id="words around it"),
        pytest.param('{"log": 0}\n{"a": 1}\n', '{"a": 1}', id="the last one"),
    ],
)
def test_the_figures_are_the_last_line_that_is_an_object(said: str, found: str) -> None:
    assert answer(said) == found


@pytest.mark.parametrize("python", ["/opt/other/bin/python", "python3"])
def test_the_other_interpreter_is_measured_and_never_becomes_our_environment(tmp_path: Path, python: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed: apt-get install make")
    for file in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / file, tmp_path)
    would = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "bench-peer", f"PYTHON={python}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "python3 -m venv .venv" in would
    assert would.splitlines()[-1].endswith(f'tests/bench/peer.py "{python if "/" in python else ""}"')
    assert would.count("/opt/other") == ("/" in python)
