"""Which runners of a database are alive: a sign of life in the store, and proof of death on the same machine."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from cloaca.errors import AlreadyExists, Conflict, NotFound
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.schedules import Runner, RunnerSpec
from cloaca.store import Store

BEAT = 5.0  # seconds between two signs of life
EXPIRY = 20.0  # seconds without one, as the observer's own clock counts them, after which a runner is taken for dead


class Presence:
    """This runner's own sign of life, and what it saw of the others'. Belongs to the runner's loop.

    Who is taken for dead wrongly (it was stalled) loses its runs, but can do no harm: every write of a run is refused
    to whoever is not its current attempt.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock  # seconds
        self.name = f"runner-{uuid.uuid4().hex}"
        self._seen: dict[str, tuple[str, float]] = {}  # runner → its resource version, and since when it has that

    async def announce(self) -> None:
        """Say that this runner lives."""
        while True:
            mine = await self._store.get(Runner, self.name)
            try:
                if mine is None:
                    await self._store.create(Runner(metadata=ObjectMeta(name=self.name), spec=this_process()))
                else:
                    await self._store.write_status(mine.with_status(beat=mine.status.beat + 1))
            except (AlreadyExists, NotFound, Conflict):
                continue
            return

    async def leave(self) -> None:
        """This runner ends in good order."""
        await self.forget(self.name)

    async def forget(self, name: str) -> None:
        """Nothing of that runner is left to be taken over."""
        await self._store.delete(Runner(metadata=ObjectMeta(name=name), spec=RunnerSpec()).ref)

    async def dead(self) -> tuple[str, ...]:
        """Runners that ended without a word."""
        now = self._clock()
        runners = [runner for runner in await self._store.list(Runner) if runner.name != self.name]
        before, self._seen = self._seen, {}
        for runner in runners:
            version = runner.metadata.resource_version
            was, since = before.get(runner.name, ("", now))
            self._seen[runner.name] = (version, since if was == version else now)
        return tuple(
            runner.name for runner in runners if is_gone(runner.spec) or now - self._seen[runner.name][1] > EXPIRY
        )

    async def is_alive(self, name: str) -> bool:
        """Whether that runner is this one, or another that nothing says is dead."""
        if name == self.name:
            return True
        return await self._store.get(Runner, name) is not None and name not in await self.dead()


def this_process() -> RunnerSpec:
    """What tells this process from every other one."""
    pid = os.getpid()
    return RunnerSpec(machine=_machine(), pid=pid, started=_started(pid) or "")


def is_gone(process: RunnerSpec) -> bool:
    """Whether that process is proved dead: it was one of this machine, and the kernel knows it no more."""
    if not process.machine or process.machine != _machine():
        return False
    return _started(process.pid) != process.started


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"  # containers of one machine count processes apart
    except OSError:  # not Linux
        return ""


def _started(pid: int) -> str | None:
    """Start time of a process, in clock ticks since the boot; None: there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
