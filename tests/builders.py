"""Archives made by hand, for tests that want whatever manifest and code they want."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any


def archive(
    code: str,
    *,
    name: str = "demo",
    version: str = "1.0.0",
    tasks: list[dict[str, Any]] | None = None,
    triggers: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> bytes:
    """The bytes of an archive whose one module holds ``code``, made by hand: with whatever manifest a test wants."""
    module = name.replace("-", "_")
    manifest = {
        "format_version": "2",
        "package": {
            "name": name,
            "version": version,
            "fingerprint": "sha256:" + "0" * 64,
            "targets": ["linux-x86_64", "linux-arm64", "macos-x86_64", "macos-arm64"],
        },
        "language": "python",
        "python": {"requires_python": ">=3.10", "entry_module": module},
        "tasks": [{"id": "only", "function": f"{module}:only", "dependencies": []}] if tasks is None else tasks,
        "triggers": [] if triggers is None else triggers,
        "created_at": "2026-03-28T09:00:00Z",
        **changes,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        for path, text in (("manifest.json", json.dumps(manifest)), (f"{module}/__init__.py", code)):
            data = text.encode()
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def declared(name: str, workflow: str = "demo", **changes: Any) -> dict[str, Any]:
    """One entry of the manifest's triggers."""
    entry = {"name": name, "trigger_type": "python", "workflow": workflow, "poll_interval": "200ms"}
    return {**entry, "allow_concurrent": False, **changes}


WORKFLOW = """
import os, time
import cloaca

with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="only", retry_attempts=0)
    def only(context):
        context.set("done", True)
"""
