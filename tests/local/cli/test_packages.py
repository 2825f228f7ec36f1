"""``new``, ``pack`` and ``check``: from nothing to an archive that a daemon accepts, and what is wrong if not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import WORKFLOW, archive, declared

Cloaca = Callable[..., Any]

TRIGGER = """
@cloaca.trigger(name="tick", poll_interval="200ms")
def tick():
    return cloaca.TriggerResult.skip()
"""


@pytest.mark.parametrize("name", ["hello", "data-ingest"])
def test_a_new_package_checks_polls_runs_and_packs_at_once(name: str, cloaca: Cloaca, tmp_path: Path) -> None:
    module = name.replace("-", "_")
    said = cloaca("new", name)
    assert (said.returncode, said.stdout.splitlines()[0]) == (0, f"{name} created: a workflow, a trigger, a test")
    checked = cloaca("check", name)
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    assert results(checked.stdout) == dict.fromkeys(("archive", "manifest", "names", "import", "agreement"), "ok")
    polled = cloaca("poll", name)
    assert (polled.returncode, polled.stdout.splitlines()[2]) == (0, f"Reason:     no file in {tmp_path}/inbox")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.txt").write_text("one\n")
    assert "  Key:      a.txt" in cloaca("poll", name, "new_file").stdout
    ran = cloaca("run", name, module, "--context", '{"path": "inbox/a.txt"}')
    assert (ran.returncode, ran.stderr, '"greeting": "hello a.txt, 1 lines"' in ran.stdout) == (
        0,
        "hello a.txt, 1 lines\n",
        True,
    )
    packed = cloaca("pack", name)
    file, digest = packed.stdout.split()
    assert (packed.returncode, file) == (0, f"{name}-0.1.0.cloacina")
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    assert cloaca("pack", name, "-o", "elsewhere/").stdout.split()[1] == digest
    assert cloaca("check", file).returncode == 0


def test_the_test_of_a_new_package_passes(cloaca: Cloaca, tmp_path: Path) -> None:
    cloaca("new", "hello")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path / "hello", capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        pytest.param(
            "Data Ingest", "'Data Ingest' is no name for a package: up to 40 letters a-z, digits", id="letters"
        ),
        pytest.param("json", "'json' is taken: Python has a module 'json'; choose another name", id="standard library"),
        pytest.param("class", "'class' is taken", id="keyword"),
        pytest.param("there", "there is there already and not empty: choose another name", id="folder"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, sentence: str, cloaca: Cloaca, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("")
    said = cloaca("new", name)
    assert (said.returncode, said.stderr.startswith(f"Error: {sentence}")) == (1, True), said.stderr


@pytest.mark.parametrize(
    ("data", "step", "fault"),
    [
        pytest.param(b"", "archive", "the archive is empty (0 bytes): copy it again", id="empty"),
        pytest.param(b"text", "archive", "the file is not a tar archive", id="no archive"),
        pytest.param(
            archive(WORKFLOW, tasks=[], format_version="1"), "manifest", "(InvalidFormatVersion)", id="manifest"
        ),
        pytest.param(
            archive(WORKFLOW + TRIGGER, triggers=[declared("tock")]),
            "names",
            "manifest declares trigger `tock`; the code has `tick` (demo/__init__.py:",
            id="names",
        ),
        pytest.param(
            archive(f"{WORKFLOW}\n1 / 0"), "import", "importing 'demo' failed: ZeroDivisionError", id="import"
        ),
        pytest.param(
            archive(f"{WORKFLOW}\nimport os; os._exit(3)"), "import", "ended its process (exit code 3)", id="crash"
        ),
        pytest.param(
            archive(f"{WORKFLOW}\nfor name in ['a']:\n    cloaca.trigger(name=name)(lambda: None)"),
            "agreement",
            "the code has trigger `a`",
            id="agreement",
        ),
    ],
)
def test_what_is_wrong_is_shown_at_its_step(data: bytes, step: str, fault: str, cloaca: Cloaca, tmp_path: Path) -> None:
    (tmp_path / "demo-1.0.0.cloacina").write_bytes(data)
    said = cloaca("check", "demo-1.0.0.cloacina")
    steps = ["archive", "manifest", "names", "import", "agreement"]
    at = steps.index(step)
    expected = [*["ok"] * at, "fault", *["not reached"] * (len(steps) - at - 1)]
    assert (said.returncode, results(said.stdout)) == (1, dict(zip(steps, expected, strict=True))), said
    assert fault in said.stdout
    assert said.stderr.startswith("Error: demo-1.0.0.cloacina would be refused: see the fault")


def test_a_warning_refuses_nothing(cloaca: Cloaca, tmp_path: Path) -> None:
    data = archive(WORKFLOW + TRIGGER, triggers=[declared("tick", poll_interval="5s")])
    (tmp_path / "demo-1.0.0.cloacina").write_bytes(data)
    said = cloaca("check", "demo-1.0.0.cloacina")
    assert said.returncode == 0
    assert "warning: trigger `tick`: poll_interval is '5s' in the manifest and '200ms' in the code" in said.stdout


def results(table: str) -> dict[str, str]:
    """Step → result, of the table that check prints."""
    rows = [re.split(r"\s{2,}", line) for line in table.splitlines()[1:6]]
    return {row[0]: row[1] for row in rows}
