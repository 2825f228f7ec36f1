"""Each rule of the manifest, broken by one change to a good one; and all faults together."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from cloaca.packages.faults import ManifestFaults
from cloaca.packages.manifest import MANIFEST_LIMIT, parse_manifest

GOOD: dict[str, Any] = {
    "format_version": "2",
    "package": {
        "name": "data-ingest",
        "version": "1.0.0",
        "fingerprint": "sha256:" + "0" * 64,
        "targets": ["linux-x86_64"],
    },
    "language": "python",
    "python": {"requires_python": ">=3.10", "entry_module": "data_ingest"},
    "tasks": [
        {"id": "validate", "function": "data_ingest:validate", "dependencies": []},
        {"id": "load", "function": "data_ingest:load", "dependencies": ["validate"]},
    ],
    "triggers": [
        {"name": "watch", "trigger_type": "python", "workflow": "data_ingest", "poll_interval": "5s"},
    ],
    "created_at": "2026-03-28T09:00:00Z",
}
GONE = object()


def changed(path: tuple[str | int, ...], value: Any) -> bytes:
    """The good manifest with one value put in, or taken out."""
    document = copy.deepcopy(GOOD)
    *parents, last = path
    part: Any = document
    for step in parents:
        part = part[step]
    if value is GONE:
        del part[last]
    else:
        part[last] = value
    return json.dumps(document).encode()


def faults_of(data: bytes) -> list[tuple[str, str]]:
    with pytest.raises(ManifestFaults) as raised:
        parse_manifest(data)
    return [(fault.path, fault.rule) for fault in raised.value.faults]


def test_a_good_manifest_is_read_whole() -> None:
    manifest = parse_manifest(json.dumps(GOOD).encode())
    assert (manifest.name, manifest.version, manifest.warnings) == ("data-ingest", "1.0.0", ())
    assert [task.id for task in manifest.tasks] == ["validate", "load"]
    assert json.loads(manifest.to_json_bytes()) == GOOD


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("format_version",), "1", ("format_version", "InvalidFormatVersion")),
        (("format_version",), 2, ("format_version", "InvalidFormatVersion")),
        (("package", "name"), "data ingest", ("package.name", "InvalidPackageName")),
        (("package", "version"), "1.0", ("package.version", "InvalidVersion")),
        (("package", "fingerprint"), "md5:0", ("package.fingerprint", "InvalidFingerprint")),
        (("package", "targets"), ["windows-x86_64"], ("package.targets[0]", "UnsupportedTarget")),
        (("language",), "rust", ("language", "UnsupportedLanguage")),
        (("language",), "go", ("language", "UnsupportedLanguage")),
        (("python",), GONE, ("python", "MissingRuntime")),
        (("python", "requires_python"), "3.10+", ("python.requires_python", "InvalidRequiresPython")),
        (("python", "entry_module"), "data-ingest", ("python.entry_module", "InvalidEntryModule")),
        (("tasks",), [], ("tasks", "NoTasks")),
        (("tasks",), GONE, ("tasks", "NoTasks")),
        (("tasks", 1, "function"), "load", ("tasks[1].function", "InvalidFunctionPath")),
        (("tasks", 1, "dependencies"), ["extrct"], ("tasks[1].dependencies[0]", "InvalidDependency")),
        (("tasks", 0, "dependencies"), ["load"], ("tasks", "DependencyCycle")),
        (("tasks", 0, "retries"), -1, ("tasks[0].retries", "WrongType")),
        (("tasks", 0, "timeout_seconds"), 0, ("tasks[0].timeout_seconds", "WrongType")),
        (("triggers", 0, "workflow"), "", ("triggers[0].workflow", "InvalidTriggerWorkflow")),
        (("triggers", 0, "poll_interval"), "5 seconds", ("triggers[0].poll_interval", "InvalidTriggerPollInterval")),
        (("triggers", 0, "poll_interval"), "10ms", ("triggers[0].poll_interval", "InvalidTriggerPollInterval")),
        (("triggers", 0, "name"), "a/b", ("triggers[0].name", "InvalidName")),
        (("triggers", 0, "allow_concurrent"), "no", ("triggers[0].allow_concurrent", "WrongType")),
        (("triggers", 0, "config"), [1], ("triggers[0].config", "WrongType")),
        (("created_at",), "yesterday", ("created_at", "InvalidTimestamp")),
        (("created_at",), GONE, ("created_at", "MissingField")),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else repr(value)[:20],
)
def test_one_broken_rule_is_one_fault_with_its_path(
    path: tuple[str | int, ...], value: Any, fault: tuple[str, str]
) -> None:
    assert faults_of(changed(path, value)) == [fault]


@pytest.mark.parametrize(("field", "rule"), [("tasks", "DuplicateTaskId"), ("triggers", "DuplicateTriggerName")])
def test_a_name_that_stands_twice_is_told_where_it_stands_first(field: str, rule: str) -> None:
    data = changed((field,), [GOOD[field][0], GOOD[field][0]])
    name = "id" if field == "tasks" else "name"
    assert faults_of(data) == [(f"{field}[1].{name}", rule)]


def test_all_faults_are_told_at_once() -> None:
    document = copy.deepcopy(GOOD)
    document["format_version"] = "3"
    document["package"]["version"] = "one"
    document["tasks"][1]["dependencies"] = ["extrct"]
    document["triggers"][0]["poll_interval"] = "soon"
    assert faults_of(json.dumps(document).encode()) == [
        ("format_version", "InvalidFormatVersion"),
        ("package.version", "InvalidVersion"),
        ("tasks[1].dependencies[0]", "InvalidDependency"),
        ("triggers[0].poll_interval", "InvalidTriggerPollInterval"),
    ]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        pytest.param(b"", "InvalidJson", id="empty"),
        pytest.param(b"{", "InvalidJson", id="cut off"),
        pytest.param(b"[]", "WrongType", id="a list"),
        pytest.param(b"\xff", "InvalidJson", id="not text"),
        pytest.param(json.dumps(GOOD).encode("utf-16"), "InvalidJson", id="UTF-16"),
        pytest.param(json.dumps(GOOD).encode("utf-32-le"), "InvalidJson", id="UTF-32"),
        pytest.param(json.dumps(GOOD).encode("utf-8-sig"), "InvalidJson", id="byte order mark"),
        pytest.param(b"[" * 100_000, "InvalidJson", id="nested"),
        pytest.param(b" " * (MANIFEST_LIMIT + 1), "TooLarge", id="large"),
    ],
)
def test_what_is_no_manifest_at_all_is_one_fault(data: bytes, rule: str) -> None:
    assert faults_of(data) == [("", rule)]


def test_fields_that_are_not_known_are_kept_and_told() -> None:
    manifest = parse_manifest(changed(("triggers", 0, "priority"), 3))
    assert manifest.warnings == ("manifest.json: triggers[0].priority: unknown field, kept without effect",)
    assert json.loads(manifest.to_json_bytes())["triggers"][0]["priority"] == 3


def test_triggers_whose_objects_would_have_one_name_are_refused_with_both_names() -> None:
    triggers = [{**GOOD["triggers"][0], "name": name} for name in ("new_file", "new-file", "new.file", "New_file")]
    with pytest.raises(ManifestFaults) as refused:
        parse_manifest(changed(("triggers",), triggers))
    assert [(fault.path, fault.rule) for fault in refused.value.faults] == [
        ("triggers[1].name", "TriggerNamesCollide"),
        ("triggers[2].name", "TriggerNamesCollide"),  # in another case it has a name of its own
    ]
    assert "'new.file' and 'new_file'" in str(refused.value)
