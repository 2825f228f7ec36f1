"""Start and end the process that executes user code for ``cloaca poll`` and ``cloaca run``. Runs none itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloaca.errors import LoadError
from cloaca.packages.inspection import IMPORT_TIMEOUT, crashed, how_it_ended, inventory_in, timed_out
from cloaca.packages.inventory import Inventory
from cloaca.packages.process import open_descriptors, python_command

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
async def child(
    *, root: Path, entry_module: str, descriptors: Sequence[int] = (), environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """The process, once the package is imported; at the end of the block it is gone, with all that it started.

    Raises LoadError where the import fails, takes too long or ends the process.
    """
    open_descriptors()
    process = await asyncio.create_subprocess_exec(
        *python_command("cloaca.cli.child"),
        env={**os.environ, **(environment or {})},
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
        raise timed_out(IMPORT_TIMEOUT) from None
    if not line:
        raise crashed(await process.wait())
    return inventory_in(json.loads(line))
