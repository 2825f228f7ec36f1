"""Start and end the process that executes user code for ``cloaca poll`` and ``cloaca run``. Runs none itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloaca.cli.daemon import isolation
from cloaca.errors import LoadError
from cloaca.packages.inventory import Inventory

IMPORT_TIMEOUT = 60.0  # seconds
LONGEST_LINE = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Child:
    """A process that has imported a package and waits to be told what to do with it."""

    inventory: Inventory
    _process: asyncio.subprocess.Process

    def do(self, job: dict[str, Any]) -> None:
        """Tell it: once."""
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")

    async def ended(self) -> str:
        """Return when it is gone, with words for how."""
        return how_it_ended(await self._process.wait())


@asynccontextmanager
async def child(*, root: Path, entry_module: str, descriptors: Sequence[int] = ()) -> AsyncIterator[Child]:
    """The process, once the package is imported; at the end of the block it is gone, with all that it started.

    Raises LoadError where the import fails, takes too long or ends the process.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *isolation(),
        "-m",
        "cloaca.cli.child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=tuple(descriptors),
        start_new_session=True,  # a group that can be ended whole
        limit=LONGEST_LINE,
    )
    try:
        package = {"root": str(root), "entry_module": entry_module}
        yield Child(inventory=await _imported(process, package), _process=process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _imported(process: asyncio.subprocess.Process, package: dict[str, str]) -> Inventory:
    if process.stdin is None or process.stdout is None:
        raise LoadError("the process for the package has no pipes")
    process.stdin.write(json.dumps(package).encode() + b"\n")
    try:
        line = await asyncio.wait_for(process.stdout.readline(), IMPORT_TIMEOUT)
    except asyncio.TimeoutError:
        raise LoadError(f"the import took longer than {IMPORT_TIMEOUT:g} s and was stopped") from None
    if not line:
        raise LoadError(f"the import ended its process ({how_it_ended(await process.wait())}) without an answer")
    answer = json.loads(line)
    if "failed" in answer:
        raise LoadError(answer["failed"], answer["traceback"])
    return Inventory.from_json(answer["loaded"])


def how_it_ended(code: int) -> str:
    """``exit code 3``, ``signal 9 (SIGKILL)``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
