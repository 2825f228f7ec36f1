"""What a run's process makes of its arguments and of the manifest that was deployed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cloaca
from cloaca.authoring.workflow import Workflow
from cloaca.processes import attempt
from cloaca.processes.run import with_manifest

ARGUMENTS = {
    "--archive": "/a",
    "--digest": "sha256:0",
    "--store": "x.db",
    "--namespace": "default",
    "--run": "r",
    "--uid": "u",
    "--attempt": "1",
}


def flat(arguments: dict[str, str]) -> list[str]:
    return [part for pair in arguments.items() for part in pair]


def workflow() -> Workflow:
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task(retry_attempts=2, timeout_seconds=5.0)
        def load(context: Any) -> None: ...

        @cloaca.task(dependencies=[load])
        def tell(context: Any) -> None: ...

    return builder.build()


def deployed(folder: Path, *tasks: dict[str, Any]) -> str:
    path = folder / "manifest.json"
    path.write_text(json.dumps({"tasks": tasks}))
    return str(path)


def limits(given: Workflow) -> dict[str, tuple[int, float | None]]:
    return {task.id: (task.retry.max_attempts, task.timeout_seconds) for task in given.tasks.values()}


def test_what_the_manifest_states_holds_and_what_it_leaves_out_stays(tmp_path: Path) -> None:
    given = workflow()
    manifest = deployed(tmp_path, {"id": "load", "retries": 7}, {"id": "tell", "timeout_seconds": 3})
    changed = with_manifest(given, manifest)
    assert limits(changed) == {"load": (7, 5.0), "tell": (limits(given)["tell"][0], 3.0)}
    assert changed.dependencies == given.dependencies
    assert limits(given)["load"] == (2, 5.0), "the package's own workflow stays as it is"


def test_a_manifest_that_says_what_the_code_says_changes_nothing(tmp_path: Path) -> None:
    given = workflow()
    assert with_manifest(given, None) is given
    assert with_manifest(given, deployed(tmp_path, {"id": "load", "retries": 2}, {"id": "other"})) is given


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        flat(ARGUMENTS)[:-2],
        [*flat(ARGUMENTS), "--verbose"],
        flat({**ARGUMENTS, "--colour": "red"}),
        flat({**ARGUMENTS, "--attempt": "first"}),
        ["run" if part == "--run" else part for part in flat(ARGUMENTS)],
    ],
    ids=["none", "one is missing", "no value", "one too many", "no number", "no option"],
)
def test_a_process_that_is_started_wrongly_says_how_it_is_started(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt.main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: python -m cloaca.processes.attempt --archive … --digest …")
