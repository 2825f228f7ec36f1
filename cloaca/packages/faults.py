"""What is wrong with a manifest: one fault, and the error that carries all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloaca.errors import ManifestError
from cloaca.packages.load import MANIFEST_NAME

FAULTS_SHOWN = 50


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with a manifest."""

    path: str
    """Where in the JSON, such as ``triggers[0].name``; empty: the document as a whole."""
    rule: str
    """Name of the rule that is broken, such as DuplicateTaskId."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message} ({self.rule})" if self.path else f"{self.message} ({self.rule})"


class ManifestFaults(ManifestError):
    """The manifest breaks rules; ``faults`` has every one of them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(_sentence(self.faults))


def json_path(steps: Iterable[str | int]) -> str:
    """The path in the notation of our messages.

    >>> json_path(("triggers", 0, "name"))
    'triggers[0].name'
    """
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path


def _sentence(faults: Sequence[Fault]) -> str:
    if len(faults) == 1:
        return f"{MANIFEST_NAME}: {faults[0]}"
    shown = [f"{MANIFEST_NAME} has {len(faults)} faults:", *(f"  {fault}" for fault in faults[:FAULTS_SHOWN])]
    if len(faults) > FAULTS_SHOWN:
        shown.append(f"  and {len(faults) - FAULTS_SHOWN} more")
    return "\n".join(shown)
