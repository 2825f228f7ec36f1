"""Names in the code and in the manifest: by reading the code, and by what it registered."""

from __future__ import annotations

import json

import pytest
from builders import archive, declared

from cloaca.authoring.registry import collecting
from cloaca.packages.agreement import check_registered, check_static, resolve_workflow
from cloaca.packages.archive import read_archive
from cloaca.packages.inventory import Inventory, inventory_of
from cloaca.packages.manifest import Manifest
from cloaca.packages.static import static_names

WORKFLOW = """
import cloaca
with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="only")
    def only(context):
        pass
"""
WATCH = """
@cloaca.trigger(name="inbox_wacther", poll_interval="1s")
def watch():
    return cloaca.TriggerResult.skip()
"""
MISSPELT = (
    "manifest declares trigger `inbox_watcher`; the code has `inbox_wacther` (demo/__init__.py:{}): did you mean that?"
)


def manifest_of(*triggers: str, **changes: object) -> Manifest:
    return read_archive(archive("", triggers=[declared(name) for name in triggers], **changes)).manifest


def read(code: str, *triggers: str) -> list[str]:
    names = static_names({"demo/__init__.py": code.encode()}, "demo")
    assert names.faults == []
    return [str(found) for found in check_static(manifest_of(*triggers), names)]


def imported(code: str) -> Inventory:
    with collecting() as registry:
        exec(compile(code, "demo/__init__.py", "exec"), {"__name__": "demo"})
    return inventory_of(registry)


@pytest.mark.parametrize(
    ("code", "triggers", "said"),
    [
        pytest.param(WORKFLOW, (), [], id="agrees"),
        pytest.param(
            WORKFLOW + WATCH,
            ("inbox_watcher",),
            [MISSPELT.format(9)],
            id="misspelt, with its place",
        ),
        pytest.param(
            WORKFLOW,
            ("watch",),
            ["manifest declares trigger `watch`, but the code has no such trigger; it has: none"],
            id="declared only",
        ),
        pytest.param(
            WORKFLOW + WATCH,
            (),
            [
                (
                    "the code has trigger `inbox_wacther` (demo/__init__.py:9), but manifest.json does not declare it: "
                    "add it to triggers, or remove it from the code"
                )
            ],
            id="in the code only",
        ),
        pytest.param(
            WORKFLOW.replace("import cloaca\n", "from cloaca import task as job\nimport cloaca\n").replace(
                "@cloaca.task", "@job"
            ),
            (),
            [],
            id="another name of the decorator",
        ),
        pytest.param(
            WORKFLOW + "import os\nif os.environ.get('X'):" + WATCH.replace("\n", "\n    "),
            (),
            [],
            id="what an if decides is left to the import",
        ),
        pytest.param(
            WORKFLOW + "for name in ('watch',):" + WATCH.replace('"inbox_wacther"', "name").replace("\n", "\n    "),
            ("watch",),
            [],
            id="a computed name is left to the import",
        ),
    ],
)
def test_reading_the_code_tells_only_what_is_certain(code: str, triggers: tuple[str, ...], said: list[str]) -> None:
    assert read(code, *triggers) == said


def test_a_file_that_is_no_python_is_told_with_its_line() -> None:
    names = static_names({"demo/__init__.py": b"x = 1\ndef (:\n"}, "demo")
    assert names.faults == ["demo/__init__.py:2: invalid syntax"]


def test_reading_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    code = WORKFLOW + "import os\nos.environ['CLOACA_READ'] = 'ran'\n"
    assert read(code) == []
    import os

    assert "CLOACA_READ" not in os.environ


def test_what_was_registered_must_agree_both_ways_and_in_its_dependencies() -> None:
    tasks = [
        {"id": "only", "function": "demo:only", "dependencies": ["first"]},
        {"id": "first", "function": "demo:first", "dependencies": []},
    ]
    report = check_registered(manifest_of("inbox_watcher", tasks=tasks), imported(WORKFLOW + WATCH))
    assert [str(found) for found in report.disagreements] == [
        MISSPELT.format(8),
        "manifest declares task `first`, but the code has no such task; it has: `only`",
        "task `only` (demo/__init__.py:4): manifest declares the dependencies `first`; the code has none",
    ]


def test_settings_that_differ_are_warnings_and_unknown_workflows_are_not() -> None:
    entry = declared("inbox_wacther", workflow="dmeo", allow_concurrent=True)
    manifest = read_archive(archive("", triggers=[entry])).manifest
    report = check_registered(manifest, imported(WORKFLOW + WATCH))
    assert [str(found) for found in report.disagreements] == [
        (
            "trigger `inbox_wacther` fires workflow `dmeo` (InvalidTriggerWorkflow), but the code has: `demo`: "
            "did you mean 'demo'?"
        )
    ]
    assert report.warnings == (
        "trigger `inbox_wacther`: poll_interval is '200ms' in the manifest and '1s' in the code; the manifest wins",
        "trigger `inbox_wacther`: allow_concurrent is True in the manifest and False in the code; the manifest wins",
    )


@pytest.mark.parametrize(
    ("name", "workflows", "meant"),
    [
        ("data_ingest", {"data_ingest": []}, "data_ingest"),
        ("data-ingest", {"data_ingest": []}, "data_ingest"),
        ("data-ingest", {"main": []}, "main"),
        ("data-ingest", {"one": [], "two": []}, None),
        ("load", {"one": ["load"], "two": ["store"]}, "one"),
        ("load", {"one": ["load"], "two": ["load"]}, None),
        ("Data_ingest", {"data_ingest": []}, None),
    ],
)
def test_a_trigger_names_a_workflow_the_package_or_a_task(
    name: str, workflows: dict[str, list[str]], meant: str | None
) -> None:
    assert resolve_workflow(name, "data-ingest", workflows) == meant


def test_an_inventory_survives_its_way_through_json() -> None:
    inventory = imported(WORKFLOW + WATCH)
    assert Inventory.from_json(json.loads(json.dumps(inventory.to_json()))) == inventory
