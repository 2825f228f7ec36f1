"""A real daemon in a home of its own, and words to wait with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cloaca.home import Home
from cloaca.packages.process import python_command
from cloaca.resources import CloacinaPackage, Trigger, WorkflowRun
from cloaca.resources.conditions import find
from cloaca.store import open_store

PATIENCE = 60.0  # seconds until something that must happen is missed; a machine that does much else is slow


class Daemon:
    """One home, and the daemon on it while it runs."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.log_file = root.parent / "daemon.log"  # not in the home, which some tests fill up
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []
        self.close_streams = False  # True: it is started without standard input, output and error
        self.store = str(self.home.database)  # its URL

    def keep_in(self, url: str) -> None:
        """Say in its settings that its store is ``url``."""
        self.home.root.mkdir(exist_ok=True)
        self.home.config.write_text(f"store = {json.dumps(url)}\n")
        self.store = url

    def start(self, folder: Path | None = None) -> None:
        """Start it in ``folder`` (None: the current one), as ``cloaca daemon`` does; returns at once."""
        self.home.root.mkdir(exist_ok=True)
        command = [*python_command("cloacina_operator.hosts.daemon"), "--home", str(self.home.root), *self.options]
        if self.close_streams:
            command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to the daemon alone: what it started must notice. Returns when all of it has ended."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + PATIENCE
        while left := processes_with(f"CLOACINA_TEST={self.environment['CLOACINA_TEST']}"):
            assert time.monotonic() < deadline, f"processes outlived their daemon: {left}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop, and wait."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(40)

    def deploy(self, data: bytes, file: str = "demo-1.0.0.cloacina") -> None:
        """Copy an archive into the packages folder."""
        self.home.packages.mkdir(parents=True, exist_ok=True)
        (self.home.packages / file).write_bytes(data)

    @property
    def log(self) -> str:
        """What the daemon said."""
        return self.log_file.read_text()

    async def eventually(self, what: str, look: Callable[[Any], Awaitable[Any]], patience: float = PATIENCE) -> Any:
        """What ``look(store)`` returns once it is true; fails with the daemon's log after ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while self.store == str(self.home.database) and not self.home.database.exists() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        store = await open_store(self.store)
        seen = None
        try:
            while time.monotonic() < deadline:
                seen = await look(store)
                if seen:
                    return seen
                await asyncio.sleep(0.02)
        finally:
            everything = [
                line.to_json_dict()
                for kind in (CloacinaPackage, Trigger, WorkflowRun)
                for line in await store.list(kind)
            ]
            await store.close()
        pytest.fail(f"waited {patience:g} s for {what}\n{json.dumps(everything, indent=1)[-6000:]}\n{self.log[-4000:]}")

    async def package(self, name: str = "demo", **wanted: tuple[str, str]) -> CloacinaPackage:
        """The package, once its conditions are as ``wanted``: type=(status, reason)."""

        async def look(store: Any) -> CloacinaPackage | None:
            package = await store.get(CloacinaPackage, name)
            if package is None:
                return None
            for condition, (status, reason) in wanted.items():
                found = find(package.status.conditions, condition)
                if found is None or (found.status.value, found.reason) != (status, reason):
                    return None
            return package

        return await self.eventually(f"package {name} with {wanted}", look)

    async def trigger(self, name: str, such: Callable[[Trigger], bool]) -> Trigger:
        """The trigger, once it is ``such``."""

        async def look(store: Any) -> Trigger | None:
            trigger = await store.get(Trigger, name)
            return trigger if trigger is not None and such(trigger) else None

        return await self.eventually(f"trigger {name}", look)

    async def runs(self, such: Callable[[tuple[WorkflowRun, ...]], bool]) -> tuple[WorkflowRun, ...]:
        """All runs, once they are ``such``."""

        async def look(store: Any) -> tuple[WorkflowRun, ...] | None:
            runs = await store.list(WorkflowRun)
            return runs if such(runs) else None

        return await self.eventually("runs", look)

    async def update(self, obj: Any) -> Any:
        """Write an object's spec, as `cloaca apply` does, whatever happened to it meanwhile."""
        store = await open_store(self.store)
        try:
            return await store.update(obj.with_metadata(resource_version=""))
        finally:
            await store.close()

    async def submit(self, obj: Any) -> Any:
        """Put an object into the store, as `cloaca apply` does."""
        store = await open_store(self.store)
        try:
            return await store.create(obj)
        finally:
            await store.close()


def processes_with(variable: str) -> list[str]:
    """Command lines of the processes that have that environment variable."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(f"{folder.name} {(folder / 'cmdline').read_bytes().replace(chr(0).encode(), b' ')!r}")
            except OSError:
                continue
    return found
