"""Starts processes on the simulated machine: an Executor whose pollers, workers and runs are the real code."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cloacina_operator.core.packages import PollerState
from cloacina_operator.core.runs import Execution
from cloacina_operator.executors.base import Waiting
from faults.crew import Crew
from faults.pipe import End, pipe
from faults.processes import CURRENT, Process

from cloaca.engine.execute import Workshop
from cloaca.engine.slots import Slots
from cloaca.engine.timers import Timers
from cloaca.errors import CloacaError
from cloaca.packages.acceptance import Accepted, accept
from cloaca.packages.archive import digest_of, read_archive
from cloaca.packages.inventory import inventory_of
from cloaca.polling.messages import LONGEST_LINE
from cloaca.polling.poller import Poller
from cloaca.polling.worker import _Worker
from cloaca.processes.fetch_report import FetchReport
from cloaca.processes.run import INTERRUPTED, LOST, TASKS_AT_ONCE, Attendance
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.store import RunStore
from cloaca.store.blocking import blocking

if TYPE_CHECKING:
    from faults.world import World

RESTART = 1.0  # seconds until a process that died is there again
STOP_GRACE = 10.0
STARTING = {True: 0.05, False: 1.5}  # seconds until the process of a run comes to work: forked by a daemon, or a pod

RUN: ContextVar[tuple[str, str]] = ContextVar("run")  # uid, and the version of the package whose code runs


@dataclass
class _Polling:
    package: CloacinaPackage
    digest: str
    process: Process
    poller: Poller
    ending: asyncio.Task[None] | None = None


@dataclass
class _Running:
    process: Process
    asked: asyncio.Event
    execution: Execution


def _archive_of(package: CloacinaPackage) -> bytes:
    """What its source, a file, holds."""
    assert package.spec.source.url is not None
    return Path(url2pathname(urlsplit(package.spec.source.url).path)).read_bytes()


class Machine:
    """Processes of one daemon (``owner``: they die with it), or of a cluster, where they outlive the operator."""

    def __init__(self, world: World, owner: Process | None) -> None:
        self._world = world
        self._owner = owner
        self._polling: dict[Ref, _Polling] = {}
        self._running: dict[Ref, _Running] = {}
        self.lost: list[Process] = []  # pollers that were given up, and go on

    # --- packages

    def awaits_news(self, package: CloacinaPackage) -> bool:  # the protocol's
        return False  # to fork costs less than a process that waits

    async def fetch(
        self,
        package: CloacinaPackage,
        known: Sequence[str],
        revision: str | None,
        waiting: Waiting | None = None,  # the protocol's
    ) -> FetchReport:
        data = _archive_of(package)
        digest = digest_of(data)
        version = self._world.versions[digest]
        return FetchReport(digest=digest, size=len(data), version=version, unchanged=digest in known)

    async def import_package(self, package: CloacinaPackage, digest: str) -> Accepted:
        read = read_archive(_archive_of(package))
        return accept(read.manifest, inventory_of(self._world.registries[digest]), read.files)

    async def has_archive(self, package: CloacinaPackage, digest: str) -> bool:
        return digest in self._world.registries

    async def keep_archives(self, package: CloacinaPackage, digests: Collection[str]) -> None:
        return None

    def inspection(self, package: Ref) -> None:
        return None

    async def remove_package(self, package: Ref) -> None:
        await self.stop_poller(package)

    # --- pollers

    def poller(self, package: Ref) -> PollerState | None:
        polling = self._polling.get(package)
        return None if polling is None else PollerState(digest=polling.digest)

    async def ensure_poller(self, package: CloacinaPackage, digest: str) -> None:
        known = self._polling.get(package.ref)
        if known is not None and known.digest == digest:
            return
        if known is not None:
            await self.stop_poller(package.ref)
        self._start_poller(package, digest)
        self._world.changed(package.ref)

    def _start_poller(self, package: CloacinaPackage, digest: str) -> None:
        process = Process("poller", self._owner)
        store = self._world.store_of("poller", self._owner or process)
        outside = CURRENT.set(process)
        try:
            poller = Poller(
                store,
                package=package.name,
                namespace=package.metadata.namespace,
                digest=digest,
                start_worker=lambda: _worker(self._world, process, digest),
            )
        finally:
            CURRENT.reset(outside)
        self._polling[package.ref] = _Polling(package, digest, process, poller)
        process.on_end(lambda: self._poller_died(process, package, digest))
        process.on_given_up(lambda: self._poller_given_up(process, package, digest))
        process.spawn(self._poll(process, poller))

    async def _poll(self, process: Process, poller: Poller) -> None:
        try:
            await poller.run()
        except CloacaError:
            process.kill()

    def _poller_died(self, process: Process, package: CloacinaPackage, digest: str) -> None:
        def again() -> None:
            polling = self._polling.get(package.ref)
            if polling is not None and polling.process is process and polling.ending is None:
                self._start_poller(package, digest)

        if self._owner is None:
            self._world.loop.call_later(RESTART, again)

    def _poller_given_up(self, process: Process, package: CloacinaPackage, digest: str) -> None:
        """Another one starts; the first goes on beside it, on a machine of which nobody hears."""
        polling = self._polling.get(package.ref)
        if polling is not None and polling.process is process and polling.ending is None:
            self.lost.append(process)
            self._start_poller(package, digest)

    async def stop_poller(self, package: Ref) -> None:
        polling = self._polling.get(package)
        if polling is None:
            return
        if polling.ending is None:
            polling.ending = polling.process.spawn(self._end_poller(polling))
        await asyncio.wait({polling.ending})
        if self._polling.get(package) is polling:
            del self._polling[package]

    async def _end_poller(self, polling: _Polling) -> None:
        await polling.poller.drain(STOP_GRACE)
        asyncio.get_running_loop().call_soon(polling.process.kill)

    # --- runs

    def execution(self, run: Ref) -> Execution | None:
        running = self._running.get(run)
        return None if running is None else running.execution

    def running(self) -> Collection[Ref]:
        return [run for run, running in self._running.items() if running.execution.ended_at is None]

    def known_runs(self) -> Collection[Ref]:
        """Those that a new operator sees a process of, as a cluster's first list shows their Jobs."""
        return list(self._running)

    async def start_run(self, run: WorkflowRun, package: CloacinaPackage, digest: str, attempt: int) -> None:
        known = self._running.get(run.ref)
        if known is not None and known.execution.attempt >= attempt:
            return
        process = Process("run", self._owner)
        running = self._running[run.ref] = _Running(process, asyncio.Event(), Execution(attempt=attempt))
        process.on_end(lambda: self._run_ended(run, running, "signal 9 (SIGKILL)", interrupted=False))
        process.on_given_up(lambda: self._run_ended(run, running, "its machine", interrupted=False))
        process.spawn(self._attend(run, running, digest, attempt))

    async def _attend(self, run: WorkflowRun, running: _Running, digest: str, attempt: int) -> None:
        await asyncio.sleep(STARTING[self._owner is not None])
        RUN.set((run.metadata.uid, self._world.versions[digest]))
        store = self._world.store_of("run", running.process)
        job = {
            "namespace": run.metadata.namespace,
            "name": run.name,
            "uid": run.metadata.uid,
            "attempt": attempt,
            "pod": f"{run.name}-{attempt}",
        }
        try:
            code = await self._attended(blocking(store, self._world.loop), job, digest, running.asked)
        except CloacaError:
            code = 1
        self._run_ended(run, running, f"exit code {code}", interrupted=code in (INTERRUPTED, LOST))
        running.process.kill()

    async def _attended(self, store: RunStore, job: dict[str, Any], digest: str, asked: asyncio.Event) -> int:
        """As ``cloaca.processes.run.run``, in a loop that others use."""
        loop, over = self._world.loop, asyncio.Event()
        workshop = Workshop(crew=Crew(), loop=loop, timers=Timers(loop), slots=Slots(TASKS_AT_ONCE))  # type: ignore[arg-type]  # its threads take turns
        registry = self._world.registries[digest]
        attendance = Attendance(store, job, registry, workshop, over=lambda: loop.call_soon_threadsafe(over.set))
        attendance.begin()
        obeying = loop.create_task(_obey(asked, attendance))
        try:
            await over.wait()
        except asyncio.CancelledError:
            attendance.abandon()
            await over.wait()
            raise
        finally:
            obeying.cancel()
        return attendance.result()

    def _run_ended(self, run: WorkflowRun, running: _Running, how: str, *, interrupted: bool) -> None:
        if running.execution.ended_at is not None:
            return
        now = self._world.clock.now()
        running.execution = replace(running.execution, ended_at=now, how=how, interrupted=interrupted)
        self._world.changed(run.ref)

    async def stop_run(self, run: Ref) -> None:
        running = self._running.get(run)
        if running is None or running.asked.is_set() or running.execution.ended_at is not None:
            return
        running.asked.set()
        self._world.loop.call_later(STOP_GRACE, running.process.kill)

    def forget_run(self, run: Ref) -> None:
        running = self._running.get(run)
        if running is not None and running.execution.ended_at is not None:
            del self._running[run]

    async def remove_run(self, run: Ref) -> None:
        running = self._running.pop(run, None)
        if running is not None:
            running.process.kill()

    def objects(self) -> list[Ref]:
        """The objects for which processes are there."""
        return [*self._polling, *self._running]

    def collect(self, owner: Ref) -> None:
        """``owner`` is gone, and with it what was there for it."""
        polling, running = self._polling.pop(owner, None), self._running.pop(owner, None)
        for gone in (polling, running):
            if gone is not None:
                gone.process.kill()

    def alive(self) -> list[str]:
        """The processes that are there."""
        found = [f"poller of {ref}" for ref, polling in self._polling.items() if polling.process.alive]
        return found + [f"run {ref}" for ref, run in self._running.items() if run.execution.ended_at is None]


class _WorkerProcess:
    """The real worker at the other end of a connection."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ended = asyncio.Event()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    def kill(self) -> None:
        self._process.kill()

    def ended(self, end: End) -> None:
        end.close()
        self._ended.set()

    async def wait(self) -> str:
        await self._ended.wait()
        return "signal 9 (SIGKILL)"

    def memory(self) -> int:
        return 0  # it has none of its own


async def _obey(asked: asyncio.Event, attendance: Attendance) -> None:
    await asked.wait()
    attendance.interrupt()


async def _worker(world: World, poller: Process, digest: str) -> _WorkerProcess:
    poller.check()
    process = Process("worker", poller)
    made = _WorkerProcess(process)
    ours, theirs = pipe(world.loop)
    worker = _Worker(world.registries[digest].triggers)
    made.reader, made.writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)  # type: ignore[arg-type]  # to Loop an end is one
    process.on_end(lambda: made.ended(theirs))
    process.spawn(worker.serve(theirs))  # type: ignore[arg-type]  # as above
    return made
