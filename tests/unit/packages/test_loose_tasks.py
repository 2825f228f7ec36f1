"""Tasks of a package that stand outside of every workflow form one that is named after the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cloaca
from cloaca.cli.submit import chosen_workflow
from cloaca.errors import DefinitionError, LoadError
from cloaca.packages.agreement import check_registered
from cloaca.packages.archive import read_archive, unpack
from cloaca.packages.build import build_package
from cloaca.packages.examine import examine
from cloaca.packages.inspection import inspect_package

LOOSE = """
import cloaca

@cloaca.task(id="validate")
def validate(context):
    context.set("valid", True)

@cloaca.task(id="load", dependencies=[validate])
async def load(context):
    pass
"""
TRIGGER = """
@cloaca.trigger({workflow}poll_interval="5s")
def watch():
    return cloaca.TriggerResult.skip()
"""


def packed(tmp_path: Path, code: str) -> Path:
    (tmp_path / "loose_ones").mkdir()
    (tmp_path / "loose_ones" / "__init__.py").write_text(code)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "data-ingest"\nversion = "1.0.0"\n[tool.cloaca]\nentry_module = "loose_ones"\n'
    )
    return build_package(tmp_path, tmp_path / "out").path


@pytest.mark.parametrize("workflow", ["", 'workflow="data_ingest", ', 'workflow="data-ingest", '], ids=["", "_", "-"])
def test_an_archive_with_them_passes_every_check_and_fires_them(tmp_path: Path, workflow: str) -> None:
    data = packed(tmp_path, LOOSE + TRIGGER.format(workflow=workflow)).read_bytes()
    manifest = read_archive(data).manifest
    assert examine(data).faults == ()
    unpack(data, tmp_path / "unpacked")

    inventory = inspect_package(tmp_path / "unpacked", manifest.entry_module)

    assert inventory.task_ids_by_workflow() == {"data-ingest": ("validate", "load")}
    assert [entry.id for entry in manifest.tasks] == ["validate", "load"]
    assert check_registered(manifest, inventory).disagreements == ()


def test_tasks_that_a_workflow_takes_are_only_its_own(tmp_path: Path) -> None:
    code = LOOSE + (
        '\nwith cloaca.WorkflowBuilder("nightly") as builder:\n'
        '    builder.add_task(validate)\n    builder.add_task("load")\n'
        "\n@cloaca.task()\ndef report(context):\n    pass\n"
    )
    data = packed(tmp_path, code).read_bytes()
    unpack(data, tmp_path / "unpacked")
    inventory = inspect_package(tmp_path / "unpacked", "loose_ones")
    assert inventory.task_ids_by_workflow() == {"nightly": ("validate", "load"), "data-ingest": ("report",)}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            LOOSE + '\nwith cloaca.WorkflowBuilder("data_ingest"):\n    @cloaca.task()\n    def other(c): pass\n',
            "task 'validate' stands outside of a workflow.*but there is a workflow 'data_ingest'",
        ),
        (LOOSE + LOOSE, "two tasks outside of a workflow have the id 'validate'"),
        (LOOSE.replace("[validate]", '["valdate"]'), "task 'load' depends on unknown task 'valdate'"),
    ],
    ids=["the name is taken", "twice", "dependency"],
)
def test_what_cannot_be_such_a_workflow_is_refused_by_the_packer(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        packed(tmp_path, code)


def test_without_a_manifest_the_name_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "bare_ones.py").write_text(LOOSE)
    with pytest.raises(LoadError, match=r"manifest\.json does not say what the package is named"):
        inspect_package(tmp_path, "bare_ones")
    (tmp_path / "manifest.json").write_text(json.dumps({"package": {"name": "bare"}}))
    assert inspect_package(tmp_path, "bare_ones").task_ids_by_workflow() == {"bare": ("validate", "load")}


def test_in_a_program_they_stay_an_error() -> None:
    with pytest.raises(DefinitionError, match="outside of a workflow: put it inside"):
        cloaca.task()(print)


@pytest.mark.parametrize("wanted", ["data-ingest", "data_ingest", None])
def test_on_the_command_line_both_spellings_name_the_workflow(wanted: str | None) -> None:
    assert chosen_workflow(["data-ingest"], wanted, "package 'data-ingest'") == "data-ingest"
