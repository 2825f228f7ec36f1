"""``cloaca poll``: one dry call of a trigger, in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cloaca = Callable[..., Any]


def test_a_skip_shows_its_reason_and_what_the_function_printed(cloaca: Cloaca, demo: Path) -> None:
    said = cloaca("poll", demo, "skipping")
    lines = said.stdout.splitlines()
    assert (said.returncode, said.stderr) == (0, "polled\n")
    assert (lines[0], lines[1].partition(",")[0], lines[2]) == (
        "Trigger:    skipping of demo 1.0.0",
        "Decision:   Skip",
        "Reason:     nothing there",
    )


def test_fires_are_shown_as_the_runs_that_they_would_be(cloaca: Cloaca, demo: Path, home: Path) -> None:
    said = cloaca("poll", demo, "firing", "--state", '{"seen": 4}')
    lines = said.stdout.splitlines()
    assert (said.returncode, lines[1].partition(",")[0]) == (0, "Decision:   Fire")
    assert lines[2:] == [
        "Run:        demo-firing-<hash of its key>, of workflow demo; nothing was submitted",
        "  Key:      k",
        "  Context:  {",
        '              "path": "/inbox"',
        "            }",
        "Run:        demo-firing-1-1, of workflow demo; nothing was submitted",
        "  Context:  {}",
        'State:      {"seen": 5}',
    ]
    assert not home.exists()


def test_a_program_gets_json(cloaca: Cloaca, demo: Path) -> None:
    said = cloaca("poll", demo, "firing", "--config", '{"path": "/elsewhere"}', "-o", "json")
    assert json.loads(said.stdout) == {
        "decision": "Fire",
        "workflow": "demo",
        "fires": [{"key": "k", "context": {"path": "/elsewhere"}}, {"key": None, "context": {}}],
        "state": {"seen": 1},
        "reason": "",
        "error": None,
        "goesOn": False,
    }


def test_a_generator_never_goes_on_after_its_first_fire(cloaca: Cloaca, demo: Path, tmp_path: Path) -> None:
    said = cloaca("poll", demo, "yielding")
    assert (said.returncode, "  Key:      a" in said.stdout) == (0, True)
    assert said.stderr == "note: the function yielded, and was stopped there: it goes on when the run exists\n"
    assert not (tmp_path / "went-on").exists()


@pytest.mark.parametrize(
    ("trigger", "error"),
    [
        pytest.param("raising", "RuntimeError: no such inbox", id="raises"),
        pytest.param("wrong", "TriggerResultError: the function returned str 'yes'; return", id="returns a text"),
    ],
)
def test_an_error_of_the_function_is_shown_with_its_traceback(
    trigger: str, error: str, cloaca: Cloaca, demo: Path
) -> None:
    said = cloaca("poll", demo, trigger)
    assert (said.returncode, f"Error:      {error}" in said.stdout) == (1, True)
    own_code = trigger == "raising"
    assert ("Traceback (most recent call last):" in said.stdout) is own_code
    assert ('File "demo/__init__.py", line 37, in raising' in said.stdout) is own_code


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(
            ["hanging", "--timeout", "0.5"],
            "trigger 'hanging' took longer than 0.5 s and was stopped: find out what it waits for, or give it "
            "--timeout",
            id="hangs",
        ),
        pytest.param(
            ["dying"], "trigger 'dying' ended its process (exit code 9): a trigger must return or raise", id="dies"
        ),
        pytest.param(["fring"], "package 'demo' has no trigger 'fring': did you mean 'firing'?", id="misspelt"),
        pytest.param(
            [],
            "package 'demo' has 7 triggers: say which one to poll: skipping, firing, yielding, raising, hanging, "
            "dying, wrong",
            id="which one",
        ),
        pytest.param(
            ["firing", "--config", "[]"],
            "--config: must be a JSON object such as '{\"file\": \"a.parquet\"}', not '[]'",
            id="config",
        ),
    ],
)
def test_what_gives_no_decision_is_an_error(words: list[str], sentence: str, cloaca: Cloaca, demo: Path) -> None:
    said = cloaca("poll", demo, *words)
    assert (said.returncode, said.stdout, said.stderr) == (1, "", f"Error: {sentence}\n")


def test_a_path_that_is_no_archive_is_an_error(cloaca: Cloaca, tmp_path: Path) -> None:
    (tmp_path / "text.cloacina").write_text("no archive")
    assert cloaca("poll", "text.cloacina").stderr.startswith("Error: the file is not a tar archive")
    assert cloaca("poll", "none.cloacina").stderr == (
        "Error: none.cloacina: No such file or directory: give an archive (.cloacina) or the folder of a package\n"
    )
