"""What the processes of an inspection found, as text that fits a container's termination message. Pure: no I/O.

What the kubelet keeps of a container's last words, 4096 bytes, is the only way out of a pod without an API token. A
report is compressed JSON. Whoever reads one takes it for hostile: it may come from the package's own code or image.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from cloaca.errors import (
    AgreementError,
    ImportCrashed,
    ImportTimedOut,
    LoadError,
    PackageError,
    PythonUnsupported,
)
from cloaca.packages.acceptance import Accepted, accepted
from cloaca.packages.manifest import Manifest
from cloaca.resources.package import WorkflowEntry
from cloaca.resources.trigger import PackageReference, TriggerSpec

LONGEST = 4096  # bytes that the kubelet keeps
LONGEST_UNPACKED = 1024 * 1024
LONGEST_NAME = 253  # characters of a version or a workflow
_TAIL = 6_000  # characters of a traceback
_MESSAGE = 2_000  # characters
_FAILURES: Mapping[str, type[PackageError]] = {
    "failed": LoadError,
    "timedOut": ImportTimedOut,
    "crashed": ImportCrashed,
    "python": PythonUnsupported,
    "disagrees": AgreementError,
}


def report_accepted(found: Accepted, manifest: Manifest, *, published: bool) -> str:
    """The text for a package that is accepted. ``published``: the reader has the manifest as well, so that what does
    not fit is told by the numbers of its tasks there."""
    told: list[Mapping[str, Any]] = [{"accepted": found.to_json_dict()}]
    if published:
        told.append({"agreed": _by_number(found, manifest)})
    for data in told:
        text = packed(data)
        if len(text) <= LONGEST:
            return text
    said = f"the inventory of {len(found.tasks)} tasks and {len(found.triggers)} triggers is longer than the {LONGEST}"
    return report_failure(LoadError(f"{said} bytes that an inspection can report: split the package"))


def report_failure(error: PackageError) -> str:
    """The text for an import that failed, or for code that differs from its manifest."""
    kind = next((word for word, known in _FAILURES.items() if type(error) is known), "failed")
    trace = error.traceback_text if isinstance(error, LoadError) else ""
    tail, message = _TAIL, str(error)[:_MESSAGE]
    while True:
        text = packed({kind: message, "traceback": trace[-tail:] if tail else ""})
        if len(text) <= LONGEST:
            return text
        if not tail:
            message = message[: len(message) // 2]
        tail //= 2


def read_report(text: str, manifest: Manifest | None) -> Accepted:
    """What the report says is accepted. ``manifest``: the one that was published, if there is one.

    Raises LoadError where it tells of a failure or is none, AgreementError where code and manifest differ.
    """
    data = unpacked(text)
    for kind, error in _FAILURES.items():
        said = data.get(kind)
        if isinstance(said, str):
            raise _told(error, said, data.get("traceback"))
    try:
        found = (
            Accepted.model_validate(data["accepted"])
            if manifest is None or "accepted" in data
            else (_of_numbers(data["agreed"], manifest))
        )
        _check(found)
    except (ValidationError, ValueError, KeyError, TypeError, IndexError) as error:
        raise nonsense() from error
    return found


def packed(data: Mapping[str, Any]) -> str:
    """``data`` as it fits a termination message."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")
    return base64.b85encode(zlib.compress(text, 9)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """What ``packed`` was given. Raises ImportCrashed for anything else."""
    decompressor = zlib.decompressobj()
    try:
        plain = decompressor.decompress(base64.b85decode(text[: 2 * LONGEST].strip()), LONGEST_UNPACKED)
        data = json.loads(plain)  # cut off where it is longer, and so no JSON
    except (ValueError, RecursionError, zlib.error) as error:
        raise nonsense() from error
    if not isinstance(data, dict):
        raise nonsense()
    return data


def nonsense() -> ImportCrashed:
    """The error of a report that is none."""
    return ImportCrashed("the inspection left something that is no report: user code wrote in its place?")


def _told(kind: type[PackageError], message: str, traceback: object) -> PackageError:
    message = message[:_MESSAGE]
    if issubclass(kind, LoadError):
        return kind(message, traceback[-_TAIL:] if isinstance(traceback, str) else "")
    return kind(message)


def _check(found: Accepted) -> None:
    """Raise ValueError for names that no object could have."""
    for trigger in found.triggers:
        TriggerSpec(package_ref=PackageReference(name="any"), name=trigger.name)
    for text in (found.version, *(workflow.name for workflow in found.workflows), *(task.id for task in found.tasks)):
        if not 0 < len(text) <= LONGEST_NAME:
            raise ValueError("a name is empty or too long")


def _by_number(found: Accepted, manifest: Manifest) -> dict[str, Any]:
    """Workflows with the places of their tasks in the manifest, of which neighbours are told as a range."""
    numbers = {task.id: number for number, task in enumerate(manifest.tasks)}
    return {
        "workflows": [
            [workflow.name, workflow.description, _ranges(numbers[task] for task in workflow.tasks)]
            for workflow in found.workflows
        ],
        "warnings": list(found.warnings),
    }


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    """``[[0, 3], [7, 1]]`` for 0, 1, 2, 7: where each begins, and how many it has."""
    grouped = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    return [[run[0][1], len(run)] for run in (list(pairs) for _, pairs in grouped)]


def _of_numbers(data: Mapping[str, Any], manifest: Manifest) -> Accepted:
    ids = [task.id for task in manifest.tasks]
    workflows, left = [], len(ids)
    for name, description, ranges in data["workflows"]:
        tasks: list[str] = []
        for first, count in ranges:
            left -= count  # a task is in one workflow
            if first < 0 or count < 1 or left < 0 or first + count > len(ids):
                raise IndexError("a task that the manifest does not have")
            tasks += ids[first : first + count]
        workflows.append(WorkflowEntry(name=name, description=description, tasks=tuple(tasks)))
    return accepted(manifest, tuple(workflows), [str(warning) for warning in data["warnings"]])
