"""Get archives and judge them, in the background: what came of it is looked up by the next decision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from cloaca.errors import (
    CloacaError,
    ImportCrashed,
    ImportTimedOut,
    LoadError,
    PythonUnsupported,
    SourceError,
    StoreUnavailable,
)
from cloaca.packages.agreement import check_registered, resolve_workflow
from cloaca.packages.archive import Limits
from cloaca.packages.examine import Examined, Step, examine
from cloaca.packages.host import host_warnings
from cloaca.packages.inventory import Inventory
from cloaca.packages.manifest import Manifest
from cloaca.packages.sources import UnsupportedSource
from cloaca.packages.versions import python_fault
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.resources.conditions import PackageReason
from cloaca.resources.package import TaskEntry, TriggerEntry, WorkflowEntry
from cloaca.store import Store
from cloacina_operator.core.packages import LONGEST_RETRY, Accepted, Fetched, FetchFailed, Refused, Unread
from cloacina_operator.executors.base import Executor
from cloacina_operator.shell.sources import Cluster, fetch_source

log = logging.getLogger("cloacina.archives")

FIRST_RETRY = timedelta(seconds=1)
LONGEST_STORE_RETRY = timedelta(seconds=30)
UNEXPECTED_PAUSE = 10.0  # seconds

_Wanted = tuple[str, int]  # uid and generation of a package: what its spec asks for
_Work = tuple[_Wanted, str]  # for which spec, and on which digest; "": none is known yet


@dataclass
class _Attempts:
    """What came of fetching for one spec."""

    outcome: Fetched | FetchFailed | None = None
    failures: int = 0
    fetched_at: datetime | None = None


class Archives:
    """Remembers what the sources gave and what the archives turned out to be. Forgetting it all loses nothing."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        limits: Limits,
        files: bool,
        changed: Callable[[Ref], None],
        cluster: Cluster | None = None,
        store_failed: Callable[[], None],
    ) -> None:
        """``store_failed`` is told of each time that the store did not answer."""
        self._store = store
        self._executor = executor
        self._limits = limits
        self._files = files
        self._cluster = cluster  # where ConfigMaps and Secrets of sources are; None: nowhere
        self._changed = changed
        self._store_failed = store_failed
        self._fetches: dict[Ref, tuple[_Wanted, _Attempts]] = {}
        self._verdicts: dict[Ref, tuple[_Wanted, str, Accepted | Refused | Unread]] = {}
        self._unneeded: set[str] = set()  # found by the last sweep
        self._busy: dict[tuple[Ref, str], tuple[_Work, asyncio.Task[None]]] = {}
        self._away: dict[tuple[Ref, str], int] = {}  # how often in a row the store was away

    # --- questions

    def fetched(
        self, package: CloacinaPackage, interval: timedelta | None, now: datetime
    ) -> Fetched | FetchFailed | None:
        """What the source gave for the spec as it is; None: nothing yet, or it is time to ask again."""
        wanted, attempts = self._fetches.get(package.ref, (None, _Attempts()))
        if wanted != _wanted(package):
            return None
        if interval is not None and attempts.fetched_at is not None:
            since = now - attempts.fetched_at
            if since >= interval or since < timedelta(0):  # the clock was set back: it may be time
                return None
        return attempts.outcome

    def verdict(self, package: CloacinaPackage, digest: str) -> Accepted | Refused | Unread | None:
        """What the archive turned out to be; None: nobody was asked to look."""
        wanted, judged, verdict = self._verdicts.get(package.ref, (None, None, None))
        return verdict if (wanted, judged) == (_wanted(package), digest) else None

    def forget(self, package: Ref) -> None:
        """The package is gone: give up what is under way for it."""
        for (ref, _), (_, task) in self._busy.items():
            if ref == package:
                task.cancel()
        self._fetches.pop(package, None)
        self._verdicts.pop(package, None)

    # --- work

    def fetch(self, package: CloacinaPackage) -> None:
        """Get the archive; under way already: fine."""
        self._work("fetch", package, "", self._fetch(package))

    def inspect(self, package: CloacinaPackage, digest: str) -> None:
        """Judge the archive; under way already: fine. An inspection for an older spec is given up: it may never end."""
        self._work("inspect", package, digest, self._inspect(package, digest))

    async def sweep(self) -> None:
        """Drop archives that nothing names. One is dropped only when the last sweep found it unneeded too: whoever has
        just put it there is still on the way to naming it."""
        kept = set(await self._store.list_archives())
        used = {outcome.digest for _, outcome in self._outcomes() if isinstance(outcome, Fetched)}
        for package in await self._store.each(CloacinaPackage):
            named = (package.status.active, package.status.candidate)
            used |= {archive.digest for archive in named if archive is not None and archive.digest is not None}
        used |= {run.spec.digest for run in await self._store.each(WorkflowRun) if run.spec.digest is not None}
        unneeded = kept - used
        for digest in unneeded & self._unneeded:
            await self._store.delete_archive(digest)
        self._unneeded = unneeded

    def _outcomes(self) -> Iterator[tuple[Ref, Fetched | FetchFailed | None]]:
        return ((ref, attempts.outcome) for ref, (_, attempts) in self._fetches.items())

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [task for _, task in self._busy.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _work(self, what: str, package: CloacinaPackage, digest: str, work: Coroutine[Any, Any, None]) -> None:
        key, wanted = (package.ref, what), (_wanted(package), digest)
        if key in self._busy:
            under_way, task = self._busy[key]
            if under_way == wanted:
                work.close()
                return
            task.cancel()
        task = asyncio.get_running_loop().create_task(work)
        self._busy[key] = (wanted, task)

        def ended(task: asyncio.Task[None]) -> None:
            if key in self._busy and self._busy[key][1] is task:  # else one for a newer spec has taken its place
                del self._busy[key]
            error = None if task.cancelled() else task.exception()
            if error is None:
                self._away.pop(key, None)
                self._changed(package.ref)
                return
            pause = UNEXPECTED_PAUSE
            if isinstance(error, StoreUnavailable):
                times = self._away[key] = self._away.get(key, 0) + 1
                pause = min(FIRST_RETRY * 2 ** min(times - 1, 20), LONGEST_STORE_RETRY).total_seconds()
                log.warning("%s: the store is away, the %s is made again in %g s: %s", package.ref, what, pause, error)
                self._store_failed()
            else:
                log.error("%s of %s failed unexpectedly", what, package.ref, exc_info=error)
            task.get_loop().call_later(pause, self._changed, package.ref)

        task.add_done_callback(ended)

    async def _fetch(self, package: CloacinaPackage) -> None:
        wanted = _wanted(package)
        known, attempts = self._fetches.get(package.ref, (None, _Attempts()))
        if known != wanted:
            attempts = _Attempts()
        try:
            data = await fetch_source(
                package, limit=self._limits.packed_bytes, files=self._files, cluster=self._cluster
            )
            digest = await self._store.put_archive(data)
            attempts.failures = 0
            attempts.outcome = self._pinned(package, digest)
        except UnsupportedSource as error:
            attempts.outcome = FetchFailed(reason=PackageReason.SOURCE_UNSUPPORTED, message=str(error), retry_at=None)
        except (SourceError, StoreUnavailable) as error:
            attempts.failures += 1
            delay = min(FIRST_RETRY * 2 ** min(attempts.failures - 1, 20), LONGEST_RETRY)
            attempts.outcome = FetchFailed(
                reason=PackageReason.FETCH_FAILED, message=str(error), retry_at=_now() + delay
            )
        attempts.fetched_at = _now()
        self._fetches[package.ref] = (wanted, attempts)

    def _pinned(self, package: CloacinaPackage, digest: str) -> Fetched | FetchFailed:
        if package.spec.digest in (None, digest):
            return Fetched(digest=digest)
        return FetchFailed(
            reason=PackageReason.DIGEST_MISMATCH,
            message=f"spec.digest pins {package.spec.digest}, but the source gave {digest}",
            retry_at=None,
        )

    async def _inspect(self, package: CloacinaPackage, digest: str) -> None:
        wanted = _wanted(package)
        self._verdicts[package.ref] = (wanted, digest, Unread(inspecting=True))
        verdict = await self._judge(package, digest)
        if isinstance(verdict, Refused):
            await self._executor.discard(package, digest)
        self._verdicts[package.ref] = (wanted, digest, verdict)

    async def _judge(self, package: CloacinaPackage, digest: str) -> Accepted | Refused:
        """First what can be said without running it, then what its import says."""
        data = await self._store.get_archive(digest)
        if data is None:
            message = f"the archive {digest} is not in the store any more"
            return Refused(reason=PackageReason.ARCHIVE_INVALID, message=message, version=None)
        examined = await asyncio.to_thread(examine, data, self._limits)
        if examined.manifest is None or examined.refused_at is not None:
            return _refused_unread(examined, examined.refused_at or Step.ARCHIVE)
        version = examined.manifest.package.version
        if package.spec.image is None:  # else the inspection says it, which runs in that image
            fault = python_fault(examined.manifest.python.requires_python)
            if fault is not None:
                return Refused(reason=PackageReason.PYTHON_UNSUPPORTED, message=fault, version=version)
        try:
            inventory = await self._executor.import_package(package, digest)
        except LoadError as error:
            return _refused_import(error, version)
        except CloacaError as error:
            return Refused(reason=PackageReason.IMPORT_CRASHED, message=str(error), version=version)
        report = check_registered(examined.manifest, inventory)
        if report.disagreements:
            message = "\n".join(str(disagreement) for disagreement in report.disagreements)
            return Refused(reason=PackageReason.NAMES_DISAGREE, message=message, version=version)
        files = () if examined.archive is None else examined.archive.files
        return _accepted(examined.manifest, inventory, (*host_warnings(files), *report.warnings))


_REASONS = {
    Step.ARCHIVE: PackageReason.ARCHIVE_INVALID,
    Step.MANIFEST: PackageReason.MANIFEST_INVALID,
    Step.AGREEMENT: PackageReason.NAMES_DISAGREE,
}


def _refused_unread(examined: Examined, step: Step) -> Refused:
    version = None if examined.manifest is None else examined.manifest.version
    return Refused(reason=_REASONS[step], message="\n".join(examined.faults), version=version)


def _refused_import(error: LoadError, version: str) -> Refused:
    reason = {
        ImportTimedOut: PackageReason.IMPORT_TIMED_OUT,
        ImportCrashed: PackageReason.IMPORT_CRASHED,
        PythonUnsupported: PackageReason.PYTHON_UNSUPPORTED,
    }.get(type(error), PackageReason.IMPORT_FAILED)
    message = f"{error}\n{error.traceback_text}" if error.traceback_text else str(error)
    return Refused(reason=reason, message=message, version=version)


def _accepted(manifest: Manifest, inventory: Inventory, warnings: tuple[str, ...]) -> Accepted:
    """What the archive holds: workflows and tasks as registered, triggers as the manifest has them."""
    workflows = {workflow.name: [task.id for task in workflow.tasks] for workflow in inventory.workflows}
    return Accepted(
        name=manifest.package.name,
        version=manifest.package.version,
        workflows=tuple(
            WorkflowEntry(name=item.name, description=item.description, tasks=tuple(task.id for task in item.tasks))
            for item in inventory.workflows
        ),
        tasks=tuple(
            TaskEntry(id=task.id, dependencies=task.dependencies) for item in inventory.workflows for task in item.tasks
        ),
        triggers=tuple(
            TriggerEntry(
                name=entry.name,
                workflow=resolve_workflow(entry.workflow, manifest.package.name, workflows) or entry.workflow,
                poll_interval=entry.poll_interval,
                allow_concurrent=entry.allow_concurrent,
                config=entry.config or {},
            )
            for entry in manifest.triggers or ()
        ),
        warnings=warnings,
    )


def _wanted(package: CloacinaPackage) -> _Wanted:
    return (package.metadata.uid, package.metadata.generation)


def _now() -> datetime:
    return datetime.now(timezone.utc)
