"""What an inspection found, as text that fits a container's termination message. Pure: no I/O.

An inspection has no access to the API, so what the kubelet keeps of a container's last words is its only way out:
4096 bytes. The report is compressed JSON; of a big package it says only where code and manifest differ.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from cloaca.errors import ImportCrashed, ImportTimedOut, LoadError, PythonUnsupported
from cloaca.packages.inventory import Inventory, TaskItem
from cloaca.packages.manifest import Manifest

LONGEST = 4096  # bytes that the kubelet keeps
LONGEST_UNPACKED = 8 * 1024 * 1024
_TAIL = 6_000  # characters of a traceback
_FAILURES: Mapping[str, type[LoadError]] = {
    "failed": LoadError,
    "timedOut": ImportTimedOut,
    "crashed": ImportCrashed,
    "python": PythonUnsupported,
}


def report_inventory(inventory: Inventory, manifest: Manifest) -> str:
    """The text for what was imported. Where it does not fit, a task that is as the manifest says is told by its number
    there, without its description and place; where it still does not fit, it says so, which refuses the archive."""
    for data in ({"loaded": inventory.to_json()}, {"agreed": _by_number(inventory, manifest)}):
        text = _packed(data)
        if len(text) <= LONGEST:
            return text
    count = sum(len(workflow.tasks) for workflow in inventory.workflows)
    said = f"the inventory of {count} tasks and {len(inventory.triggers)} triggers is longer than the {LONGEST} bytes"
    return report_failure(LoadError(f"{said} that an inspection can report: split the package"))


def report_failure(error: LoadError) -> str:
    """The text for an import that failed."""
    kind = next((word for word, known in _FAILURES.items() if type(error) is known), "failed")
    tail = _TAIL
    while True:
        said: dict[str, Any] = {kind: str(error)[:2_000], "traceback": error.traceback_text[-tail:] if tail else ""}
        text = _packed(said)
        if len(text) <= LONGEST or not tail:
            return text[:LONGEST]
        tail //= 2


def read_report(text: str, manifest: Manifest) -> Inventory:
    """What the report says was imported. Raises LoadError where it tells of a failure, or is none."""
    try:
        compressed = base64.b85decode(text.strip())
        data = json.loads(zlib.decompressobj().decompress(compressed, LONGEST_UNPACKED))
        for kind, error in _FAILURES.items():
            if kind in data:
                raise error(data[kind], data["traceback"])
        return Inventory.from_json(data["loaded"] if "loaded" in data else _with_tasks(data["agreed"], manifest))
    except (ValueError, KeyError, TypeError, IndexError, zlib.error) as error:
        if isinstance(error, LoadError):
            raise
        raise ImportCrashed("the inspection left something that is no report: user code wrote in its place?") from error


def _packed(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")
    return base64.b85encode(zlib.compress(text, 9)).decode()


def _by_number(inventory: Inventory, manifest: Manifest) -> dict[str, Any]:
    numbers = {task: number for number, task in enumerate(_declared(manifest))}
    bare = Inventory(
        workflows=tuple(
            replace(workflow, tasks=tuple(replace(task, description="", place=None) for task in workflow.tasks))
            for workflow in inventory.workflows
        ),
        triggers=tuple(replace(trigger, place=None) for trigger in inventory.triggers),
    )
    data = bare.to_json()
    for workflow, entry in zip(bare.workflows, data["workflows"], strict=True):
        entry["tasks"] = [numbers.get(task, told) for task, told in zip(workflow.tasks, entry["tasks"], strict=True)]
    return data


def _with_tasks(data: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    """What ``_by_number`` was given, as JSON."""
    declared = _declared(manifest)
    workflows = [
        {**workflow, "tasks": [asdict(declared[task]) if isinstance(task, int) else task for task in workflow["tasks"]]}
        for workflow in data["workflows"]
    ]
    return {**data, "workflows": workflows}


def _declared(manifest: Manifest) -> list[TaskItem]:
    """The tasks as code would register them that agrees with the manifest in everything."""
    return [
        TaskItem(
            id=task.id,
            function=task.function,
            dependencies=task.dependencies,
            retries=task.retries,
            timeout_seconds=task.timeout_seconds,
        )
        for task in manifest.tasks
    ]
