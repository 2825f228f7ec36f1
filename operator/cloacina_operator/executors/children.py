"""Local processes: one zygote a package and archive, which forks its poll workers and runs. All die with this one."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
import tempfile
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from cloaca.errors import CloacaError, LoadError
from cloaca.home import Home
from cloaca.packages.acceptance import Accepted, accept, files_of
from cloaca.packages.archive import Limits, unpack
from cloaca.packages.environment import environment_of
from cloaca.packages.load import MANIFEST_NAME
from cloaca.packages.manifest import parse_manifest
from cloaca.polling.observe import Measures
from cloaca.polling.poller import Poller
from cloaca.processes.exits import INTERRUPTED, LOST
from cloaca.processes.fetch import limits_as_arguments
from cloaca.processes.fetch_report import FetchReport, read_fetch_report, refused
from cloaca.processes.launch import Child, Nursery, PackageZygote, ProcessError
from cloaca.processes.mounted import joined_parts
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.store import ArchiveStore
from cloaca.store.of_home import drivers_of
from cloacina_operator.core.packages import Hindrance, PollerState
from cloacina_operator.core.runs import Execution
from cloacina_operator.executors.base import ArchiveMissing, Waiting

log = logging.getLogger("cloacina.children")

FETCH = "cloaca.processes.fetch"
FETCH_TIMEOUT = 120.0  # seconds for all of it; its source has half of them
STOP_GRACE = 10.0  # seconds between SIGTERM and SIGKILL
POLLER_BACKOFF = (1.0, 5.0, 30.0, 60.0)  # seconds before a poller that ended is started again, by failures in a row
POLLED_WELL = 60.0  # seconds after which the end of a poller is the first of a row

ZygoteKey = tuple[Ref, str]  # package, digest


@dataclass
class _Polling:
    """The poller of one package."""

    digest: str
    poller: Poller | None = None  # None: being started
    task: asyncio.Task[None] | None = None
    failure: str | None = None
    failures: int = 0  # in a row


@dataclass
class _Running:
    """The process of one run."""

    run: WorkflowRun
    key: ZygoteKey
    execution: Execution
    task: asyncio.Task[None] | None = None
    child: Child | None = None  # None: its zygote is being started
    stopping: bool = False
    finished: bool = False  # the run is; its process may still be about to end


class Children:
    """The executor of the daemon. Belongs to one event loop."""

    def __init__(
        self,
        *,
        store: ArchiveStore,
        store_url: str,
        home: Home,
        limits: Limits,
        import_timeout: float,
        worker_memory: int,
        jitter: float,
        measures: Measures | None,
        changed: Callable[[Ref], None],
    ) -> None:
        self._store = store
        self._store_url = store_url
        self._home = home
        self._limits = limits
        self._import_timeout = import_timeout
        self._worker_memory = worker_memory
        self._jitter = jitter
        self._measures = measures
        self._changed = changed
        self._nursery: Nursery | None = None
        self._fetchers: Nursery | None = None  # forks fetches: imports what no process of a package should have
        self._nursing = asyncio.Lock()
        self._zygotes: dict[ZygoteKey, asyncio.Task[PackageZygote]] = {}
        self._unpacking: dict[str, asyncio.Lock] = {}  # by digest
        self._wanted: dict[Ref, set[str]] = {}  # package -> digests whose zygote is kept though nothing of it runs
        self._polling: dict[Ref, _Polling] = {}
        self._running: dict[Ref, _Running] = {}
        self._draining = False
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Have the first zygote ready, so that the first package need not wait for it."""
        async with self._nursing:
            if self._nursery is None or not self._nursery.alive:
                self._nursery = await Nursery.start(drivers_of(self._store_url))
            if self._fetchers is None or not self._fetchers.alive:
                self._fetchers = await Nursery.start((FETCH,))

    # --- packages

    def awaits_news(self, package: CloacinaPackage) -> bool:  # noqa: ARG002  # the protocol's
        return False  # to fork costs less than a process that waits

    async def fetch(
        self,
        package: CloacinaPackage,
        known: Sequence[str],
        revision: str | None,
        waiting: Waiting | None = None,  # noqa: ARG002  # the protocol's
    ) -> FetchReport:
        """A forked process reads the bytes; this one only checks that they are those that it reports."""
        if package.spec.source.url is None:
            said = "spec.source.configMap: there are no ConfigMaps outside of a cluster; use url"
            return refused("SourceUnsupported", said)
        if package.spec.secret_ref is not None:
            return refused("SourceUnsupported", "spec.secretRef: there are no Secrets outside of a cluster")
        with tempfile.TemporaryDirectory(prefix="cloaca-fetch-") as folder:
            words, out = Path(folder) / "words", Path(folder) / "archive"
            arguments = [
                f"--url={package.spec.source.url}",
                "--local-files",
                "--this-python",
                f"--out={out}",
                f"--words={words}",
            ]
            arguments += [f"--known={digest}" for digest in known] + limits_as_arguments(self._limits)
            arguments += [] if revision is None else [f"--revision={revision}"]
            arguments += [] if package.spec.digest is None else [f"--digest={package.spec.digest}"]
            try:
                how = await self._fetched(arguments)
                text = await asyncio.to_thread(words.read_text) if words.exists() else None
            except (CloacaError, OSError) as error:
                return refused("FetchFailed", f"no process could be started to fetch: {error}", retry=True)
            if text is None:
                said = f"the process that read the archive ended ({how}) without an answer"
                return refused("ArchiveInvalid", f"{said}: is it too large, or malformed?")
            report = read_fetch_report(text)
            if report.refusal is not None or report.unchanged:
                return report
            data = await asyncio.to_thread(joined_parts, out)
            if len(data) > self._limits.packed_bytes or await self._store.put_archive(data) != report.digest:
                return refused("FetchFailed", "the fetch left other bytes than it reported", retry=True)
            return report

    async def _fetched(self, arguments: Sequence[str]) -> str:
        """How a process with these arguments ended, in words. Raises ProcessError where none can be had."""
        await self.start()
        if self._fetchers is None:
            raise ProcessError("the process that starts fetches is gone")
        child = self._fetchers.fetch(arguments)
        await child.started
        try:
            return (await asyncio.wait_for(asyncio.shield(child.ended), FETCH_TIMEOUT)).how
        except asyncio.TimeoutError:
            return f"stopped after {FETCH_TIMEOUT:g} s"
        finally:
            if not child.ended.done():
                child.signal(signal.SIGKILL)
                await child.ended

    async def import_package(self, package: CloacinaPackage, digest: str) -> Accepted:
        """The zygote that is started for this serves the pollers and runs as well: a package is imported once."""
        self._wanted.setdefault(package.ref, set()).add(digest)
        zygote = await self._zygote(package, digest)
        inventory = await zygote.inventory(self._import_timeout)
        root = await self._unpacked(digest)
        manifest = parse_manifest((root / MANIFEST_NAME).read_bytes())
        return await asyncio.to_thread(accept, manifest, inventory, files_of(root))

    async def has_archive(self, package: CloacinaPackage, digest: str) -> bool:  # noqa: ARG002  # the protocol's
        return digest in await self._store.list_archives()

    async def keep_archives(self, package: CloacinaPackage, digests: Collection[str]) -> None:
        """The bytes are in the store, for all packages: whoever sweeps it drops them."""
        self._wanted.get(package.ref, set()).intersection_update(digests)
        await self._sweep()

    def inspection(self, package: Ref) -> Hindrance | None:  # noqa: ARG002  # the protocol's
        return None  # a zygote starts at once, or fails

    async def remove_package(self, package: Ref) -> None:
        await self.stop_poller(package)
        self._wanted.pop(package, None)
        await self._sweep()

    async def _zygote(self, package: CloacinaPackage, digest: str) -> PackageZygote:
        """The zygote for that archive, with the package imported. Raises LoadError."""
        key = (package.ref, digest)
        starting = self._zygotes.get(key)
        if starting is not None and starting.done() and (starting.exception() or not starting.result().alive):
            starting = None
        if starting is None:
            starting = asyncio.get_running_loop().create_task(self._start_zygote(package, digest))
            self._zygotes[key] = starting
        try:
            return await asyncio.shield(starting)
        except CloacaError:
            if self._zygotes.get(key) is starting:
                del self._zygotes[key]
            raise

    async def _start_zygote(self, package: CloacinaPackage, digest: str) -> PackageZygote:
        root = await self._unpacked(digest)
        entry_module = json.loads((root / MANIFEST_NAME).read_bytes())["python"]["entry_module"]
        await self.start()
        if self._nursery is None:
            raise LoadError("the process that starts packages is gone")
        zygote = self._nursery.package(
            root=root,
            entry_module=entry_module,
            env=environment_of(package),
            log=self._home.package_log(package.name, package.metadata.namespace),
        )
        await zygote.inventory(self._import_timeout)
        return zygote

    async def _unpacked(self, digest: str) -> Path:
        """The folder with the files of the archive, unpacked again if somebody removed them. Raises CloacaError."""
        root = self._home.unpacked_archive(digest)
        async with self._unpacking.setdefault(digest, asyncio.Lock()):
            if (root / MANIFEST_NAME).exists():
                return root
            data = await self._store.get_archive(digest)
            if data is None:
                raise ArchiveMissing(f"the archive {digest} is not in the store any more: it is fetched again")
            if any(digest == used for (_, used), starting in self._zygotes.items() if starting.done()):
                log.warning("%s was removed while the daemon used it: it is unpacked again", root)
            await asyncio.to_thread(_unpack_anew, data, root, self._limits)
        return root

    async def _sweep(self) -> None:
        """End zygotes of archives that nothing uses any more."""
        used = {(ref, digest) for ref, digests in self._wanted.items() for digest in digests}
        used |= {(ref, polling.digest) for ref, polling in self._polling.items()}
        used |= {running.key for running in self._running.values() if running.execution.ended_at is None}
        for key in [key for key in self._zygotes if key not in used]:
            starting = self._zygotes.pop(key)
            if starting.done() and not starting.cancelled() and starting.exception() is None:
                await starting.result().close()

    # --- pollers

    def poller(self, package: Ref) -> PollerState | None:
        polling = self._polling.get(package)
        return None if polling is None else PollerState(digest=polling.digest, failure=polling.failure)

    async def ensure_poller(self, package: CloacinaPackage, digest: str) -> None:
        known = self._polling.get(package.ref)
        if known is not None and known.digest == digest:
            return
        if known is not None:
            await self._end_polling(known)
        self._wanted[package.ref] = {digest}
        polling = self._polling[package.ref] = _Polling(digest=digest)
        polling.task = asyncio.get_running_loop().create_task(self._poll(package, polling))
        self._changed(package.ref)
        await self._sweep()

    async def stop_poller(self, package: Ref) -> None:
        polling = self._polling.pop(package, None)
        if polling is not None:
            await self._end_polling(polling)

    async def _end_polling(self, polling: _Polling) -> None:
        if polling.poller is not None:
            await polling.poller.drain(STOP_GRACE)
        if polling.task is not None:
            polling.task.cancel()
            await asyncio.wait({polling.task})

    async def _poll(self, package: CloacinaPackage, polling: _Polling) -> None:
        """Keep a poller going: start it again, with backoff, when its zygote cannot be had or is lost."""
        loop = asyncio.get_running_loop()
        while True:
            began = None
            try:
                zygote = await self._zygote(package, polling.digest)
                began = loop.time()
                namespace, name = package.metadata.namespace, package.name
                polling.poller = Poller(
                    self._store,
                    package=name,
                    namespace=namespace,
                    digest=polling.digest,
                    start_worker=zygote.start_worker,
                    worker_memory=self._worker_memory,
                    jitter=self._jitter,
                    observer=None if self._measures is None else self._measures.of(namespace, name),
                )
                if polling.failure is not None:
                    polling.failure = None
                    self._changed(package.ref)
                following = asyncio.ensure_future(polling.poller.run())
                lost = asyncio.ensure_future(zygote.ended())
                try:
                    await asyncio.wait({following, lost}, return_when=asyncio.FIRST_COMPLETED)
                    polling.failure = "the process of the package ended; it is started again"
                    if following.done():
                        following.result()
                finally:
                    following.cancel()
                    lost.cancel()
                    await asyncio.wait({following})
            except CloacaError as error:
                polling.failure = str(error)
            polling.poller = None
            log.warning("%s: polling stopped: %s", package.ref, polling.failure)
            self._changed(package.ref)
            polling.failures = in_a_row(polling.failures, None if began is None else loop.time() - began)
            await asyncio.sleep(POLLER_BACKOFF[min(polling.failures, len(POLLER_BACKOFF)) - 1])

    # --- runs

    def execution(self, run: Ref) -> Execution | None:
        running = self._running.get(run)
        return None if running is None else running.execution

    def running(self) -> Collection[Ref]:
        return [run for run, running in self._running.items() if running.execution.ended_at is None]

    async def start_run(self, run: WorkflowRun, package: CloacinaPackage, digest: str, attempt: int) -> None:
        if self._draining:
            return  # the next start finds it as it is; begun now it would only be interrupted
        known = self._running.get(run.ref)
        if known is not None and known.execution.attempt >= attempt:
            return
        running = _Running(run=run, key=(package.ref, digest), execution=Execution(attempt=attempt))
        self._running[run.ref] = running
        running.task = asyncio.get_running_loop().create_task(self._run(running, package, digest))

    async def _run(self, running: _Running, package: CloacinaPackage, digest: str) -> None:
        run, attempt = running.run, running.execution.attempt
        interrupted = False
        try:
            zygote = await self._zygote(package, digest)
            root = await self._unpacked(digest)
            await self._ended_before(run)
            job = {
                "store": self._store_url,
                "namespace": run.metadata.namespace,
                "name": run.name,
                "uid": run.metadata.uid,
                "attempt": attempt,
                "manifest": str(root / MANIFEST_NAME),
            }
            running.child = zygote.start_run(job, self._home.run_log(run.name, run.metadata.namespace))
            if running.stopping:
                running.child.signal(signal.SIGTERM)
            ended = await running.child.ended
            how, interrupted = ended.how, ended.code in (INTERRUPTED, LOST)
        except CloacaError as error:
            how = str(error)
        running.execution = replace(
            running.execution, ended_at=datetime.now(timezone.utc), how=how, interrupted=interrupted
        )
        self._changed(run.ref)
        await self._sweep()

    async def _ended_before(self, run: WorkflowRun) -> None:
        """Return once no process of a finished run of the same trigger is left: user code may still clean up there, and
        exit handlers run, when the run's end is recorded."""
        by, package = run.spec.trigger_ref, run.spec.package_ref
        leaving = [
            other.task
            for other in self._running.values()
            if other.finished and other.task is not None and other.execution.ended_at is None
            if by is not None and (other.run.spec.trigger_ref, other.run.spec.package_ref) == (by, package)
        ]
        if leaving:
            await asyncio.wait(leaving)

    async def stop_run(self, run: Ref) -> None:
        running = self._running.get(run)
        if running is None or running.stopping or running.execution.ended_at is not None:
            return
        running.stopping = True
        if running.child is not None:
            running.child.signal(signal.SIGTERM)
        self._later(self._kill_after(running, STOP_GRACE))

    async def _kill_after(self, running: _Running, seconds: float) -> None:
        if running.task is not None:
            await asyncio.wait({running.task}, timeout=seconds)
        if running.execution.ended_at is None and running.child is not None:
            running.child.signal(signal.SIGKILL)

    def forget_run(self, run: Ref) -> None:
        running = self._running.get(run)
        if running is not None:
            running.finished = True
            if running.execution.ended_at is not None:
                del self._running[run]

    async def remove_run(self, run: Ref) -> None:
        running = self._running.pop(run, None)
        if running is not None and running.child is not None:
            running.child.signal(signal.SIGKILL)

    # --- the end

    async def drain(self, seconds: float) -> None:
        """Poll no more, start no run, and wait up to ``seconds`` for what is under way; then interrupt the runs, to be
        resumed later."""
        self._draining = True
        pollers = [polling.poller for polling in self._polling.values() if polling.poller is not None]
        runs = [running for running in self._running.values() if running.execution.ended_at is None]
        waiting = [asyncio.ensure_future(poller.drain(seconds)) for poller in pollers]
        waiting += [running.task for running in runs if running.task is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        still = [running for running in runs if running.execution.ended_at is None and running.child is not None]
        for running in still:
            if running.child is not None:
                running.child.signal(signal.SIGTERM)
        if still:
            await asyncio.wait([running.task for running in still if running.task is not None], timeout=2.0)

    async def close(self) -> None:
        """End everything that was started, now."""
        tasks: list[asyncio.Task[None]] = [*self._background]
        tasks += [polling.task for polling in self._polling.values() if polling.task is not None]
        tasks += [running.task for running in self._running.values() if running.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for nursery in (self._nursery, self._fetchers):
            if nursery is not None:
                await nursery.close()

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _unpack_anew(data: bytes, root: Path, limits: Limits) -> None:
    """Unpack, also where a part of what was unpacked is left. Raises ArchiveError."""
    shutil.rmtree(root, ignore_errors=True)
    unpack(data, root, limits)


def in_a_row(failures: int, polled: float | None) -> int:
    """The failures of a poller with the one that came after ``polled`` seconds; None: it could not be started."""
    return 1 if polled is not None and polled >= POLLED_WELL else failures + 1
