"""Have archives fetched and judged, in the background: what came of it is looked up by the next decision.

Touches no byte of an archive: processes of the executor do, and report.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from cloaca.errors import (
    AgreementError,
    CloacaError,
    ImportCrashed,
    ImportTimedOut,
    LoadError,
    PythonUnsupported,
    StoreUnavailable,
)
from cloaca.packages.acceptance import Accepted
from cloaca.processes.fetch_report import FetchReport
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.resources.conditions import PackageReason
from cloaca.resources.spans import parse_span
from cloaca.store import ArchiveStore, Store
from cloacina_operator.core.packages import (
    LONGEST_RETRY,
    Fetched,
    FetchFailed,
    Refused,
    Unread,
)
from cloacina_operator.core.plan import AwaitNews, Fetch, Inspect
from cloacina_operator.core.retention import already_fetched, kept_archives
from cloacina_operator.executors.base import ArchiveMissing, Executor, Waiting

log = logging.getLogger("cloacina.archives")

FIRST_RETRY = timedelta(seconds=1)
LONGEST_STORE_RETRY = timedelta(seconds=30)
UNEXPECTED_PAUSE = 10.0  # seconds

_Wanted = tuple[str, int, str | None]  # uid and generation of a package, and the request to reconcile it now
_Work = tuple[_Wanted, str]  # for which spec, and on which digest; "": none is known yet


@dataclass
class _Attempts:
    """What came of fetching for one spec."""

    outcome: Fetched | FetchFailed | None = None
    version: str | None = None  # of the fetched archive, as its manifest says
    revision: str | None = None  # of the fetched archive, as its source calls it
    failures: int = 0
    fetched_at: datetime | None = None
    changes: int = 0  # how many pulls in a row gave other bytes

    def pause(self, interval: timedelta) -> timedelta:
        """Until the source is asked again: longer and longer where it gives other bytes each time."""
        longer: timedelta = interval * 2 ** min(self.changes, 20)
        return max(interval, min(longer, LONGEST_RETRY))


class Archives:
    """Remembers what the sources gave and what the archives turned out to be. Forgetting it all loses nothing."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        changed: Callable[[Ref], None],
        kept_in: ArchiveStore | None,
        least_interval: timedelta = timedelta(0),
        store_failed: Callable[[], None],
    ) -> None:
        """``kept_in``: the store with the archives of all packages; None: the executor keeps those of each package.
        ``least_interval``: between two pulls of a source, whatever its package says. ``store_failed`` is told of each
        time that the store did not answer.
        """
        self._store = store
        self._executor = executor
        self._kept_in = kept_in
        self._least_interval = least_interval
        self._changed = changed
        self._store_failed = store_failed
        self._fetches: dict[Ref, tuple[_Wanted, _Attempts]] = {}
        self._verdicts: dict[Ref, tuple[_Wanted, str, Accepted | Refused | Unread]] = {}
        self._unneeded: set[str] = set()  # found by the last sweep
        self._busy: dict[tuple[Ref, str], tuple[_Work, asyncio.Task[None]]] = {}
        self._away: dict[tuple[Ref, str], int] = {}  # how often in a row the store was away

    # --- questions

    async def remember(self, package: CloacinaPackage, interval: timedelta | None, now: datetime) -> None:
        """After a restart: what is active and still there for the spec as it is need not be fetched again."""
        digest = None if package.ref in self._fetches else already_fetched(package)
        if digest is None or not await self._executor.has_archive(package, digest):
            return
        since = timedelta(0) if interval is None else interval * random.random()  # not all at once
        attempts = _Attempts(outcome=Fetched(digest=digest), fetched_at=now - since)
        self._fetches[package.ref] = (_wanted(package), attempts)

    def fetched(
        self, package: CloacinaPackage, interval: timedelta | None, now: datetime
    ) -> Fetched | FetchFailed | None:
        """What the source gave for the spec as it is; None: nothing yet, or it is time to ask again."""
        wanted, attempts = self._fetches.get(package.ref, (None, _Attempts()))
        if wanted != _wanted(package):
            return None
        waited_for = isinstance(attempts.outcome, Fetched) and self._executor.awaits_news(package)
        if interval is not None and attempts.fetched_at is not None and not waited_for:
            since = now - attempts.fetched_at
            if since >= attempts.pause(max(interval, self._least_interval)) or since < timedelta(
                0
            ):  # the clock was set back: it may be time
                return None
        return attempts.outcome

    def verdict(self, package: CloacinaPackage, digest: str) -> Accepted | Refused | Unread | None:
        """What the archive turned out to be; None: nobody was asked to look."""
        wanted, judged, verdict = self._verdicts.get(package.ref, (None, None, None))
        return verdict if (wanted, judged) == (_wanted(package), digest) else None

    def lost(self, package: Ref) -> None:
        """The bytes of its archive are not there: have them fetched again."""
        self._fetches.pop(package, None)
        self._changed(package)

    def forget(self, package: Ref) -> None:
        """The package is gone: give up what is under way for it."""
        for (ref, _), (_, task) in self._busy.items():
            if ref == package:
                task.cancel()
        self._fetches.pop(package, None)
        self._verdicts.pop(package, None)

    # --- work

    def perform(self, action: Fetch | AwaitNews | Inspect, package: CloacinaPackage) -> None:
        """What a decision about the package asks for."""
        match action:
            case Fetch():
                self.fetch(package)
            case AwaitNews():
                self.await_news(package)
            case Inspect(digest=digest):
                self.inspect(package, digest)

    def fetch(self, package: CloacinaPackage) -> None:
        """Get the archive; under way already: fine."""
        self._work("fetch", package, "", self._fetch(package))

    def await_news(self, package: CloacinaPackage) -> None:
        """Have a process wait for news of the source, where the executor has such processes; it is there: fine."""
        interval = package.spec.interval
        if (
            interval is not None
            and parse_span(interval)
            and self._executor.awaits_news(package)
            and package.ref in self._fetches
        ):
            seconds = max(timedelta(seconds=parse_span(interval)), self._least_interval)
            attempts = self._fetches[package.ref][1]
            waiting = Waiting(every=seconds, after=attempts.pause(seconds))
            self._work("fetch", package, "", self._fetch(package, waiting))

    def inspect(self, package: CloacinaPackage, digest: str) -> None:
        """Judge the archive; under way already: fine. An inspection for an older spec is given up: it may never end."""
        self._work("inspect", package, digest, self._inspect(package, digest))

    async def sweep(self) -> None:
        """Drop archives that nothing names. One of a store is dropped only when the last sweep found it unneeded too:
        whoever has just put it there is still on the way to naming it."""
        pinned = await self._pinned()
        used: set[str] = set()
        for package in await self._store.each(CloacinaPackage):
            kept = self._kept(package, pinned)
            used |= kept
            if self._kept_in is None:
                await self._executor.keep_archives(package, kept)
        if self._kept_in is None:
            return
        used |= {digest for digests in pinned.values() for digest in digests}
        unneeded = set(await self._kept_in.list_archives()) - used
        for digest in unneeded & self._unneeded:
            await self._kept_in.delete_archive(digest)
        self._unneeded = unneeded

    async def _pinned(self) -> dict[Ref, set[str]]:
        """The digests that runs which have not ended pin, by package."""
        pinned: dict[Ref, set[str]] = {}
        for run in await self._store.each(WorkflowRun):
            if run.spec.digest is not None and run.spec.package_ref is not None and not run.status.phase.finished:
                of = Ref(CloacinaPackage.KIND, run.metadata.namespace, run.spec.package_ref.name)
                pinned.setdefault(of, set()).add(run.spec.digest)
        return pinned

    def _kept(self, package: CloacinaPackage, pinned: dict[Ref, set[str]]) -> frozenset[str]:
        candidate = None if package.status.candidate is None else package.status.candidate.digest
        if package.ref in self._fetches:
            outcome = self._fetches[package.ref][1].outcome
            candidate = outcome.digest if isinstance(outcome, Fetched) else None
        if candidate is not None and isinstance(self.verdict(package, candidate), Refused):
            candidate = None
        return kept_archives(package, candidate, pinned.get(package.ref, ()))

    async def _tidy(self, package: CloacinaPackage) -> None:
        """Drop what the package has no use for any more, at once."""
        fresh = await self._store.get(CloacinaPackage, package.name, package.metadata.namespace)
        if fresh is not None and fresh.metadata.uid == package.metadata.uid:
            await self._executor.keep_archives(fresh, self._kept(fresh, await self._pinned()))

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

    async def _fetch(self, package: CloacinaPackage, waiting: Waiting | None = None) -> None:
        wanted = _wanted(package)
        spec, attempts = self._fetches.get(package.ref, (None, _Attempts()))
        if spec != wanted:
            attempts = _Attempts()
        try:
            known = self._judged(package, attempts)
            last = attempts.outcome.digest if isinstance(attempts.outcome, Fetched) else None
            revision = attempts.revision if known[:1] == (last,) else None
            report = await self._executor.fetch(package, known, revision, waiting)
        except StoreUnavailable as error:
            report = FetchReport(refusal="FetchFailed", message=str(error)[:2_000], retry=True)
        before = attempts.outcome
        replaced = isinstance(before, Fetched) and report.digest is not None and before.digest != report.digest
        quiet = (
            waiting is not None
            and attempts.fetched_at is not None
            and _now() - attempts.fetched_at > 2 * attempts.pause(waiting.every)
        )
        attempts.changes = attempts.changes + 1 if replaced and not quiet else 0
        refusal, digest = report.refusal, report.digest
        if digest is not None and refusal in _OF_ARCHIVES:
            message = report.message
            refused = Refused(reason=_OF_ARCHIVES[refusal], message=message, version=report.version)
            self._verdicts[package.ref] = (wanted, digest, refused)
        if refusal is None or (digest is not None and refusal in _OF_ARCHIVES):
            attempts.failures, attempts.version = 0, report.version
            attempts.outcome = Fetched(digest=digest or "")
            attempts.revision = report.revision
        else:
            attempts.outcome = self._failed(report, attempts)
        attempts.fetched_at = _now()
        self._fetches[package.ref] = (wanted, attempts)
        if replaced:
            await self._tidy(package)

    def _judged(self, package: CloacinaPackage, attempts: _Attempts) -> tuple[str, ...]:
        """The archive that was fetched last, where nobody need look at it again; then the active one."""
        digests = []
        if isinstance(attempts.outcome, Fetched) and isinstance(
            self.verdict(package, attempts.outcome.digest), Accepted | Refused
        ):
            digests.append(attempts.outcome.digest)
        if package.status.active is not None:
            digests.append(package.status.active.digest)
        return tuple(dict.fromkeys(digests))

    def _failed(self, report: FetchReport, attempts: _Attempts) -> FetchFailed:
        attempts.failures += 1
        delay = min(FIRST_RETRY * 2 ** min(attempts.failures - 1, 20), LONGEST_RETRY)
        reason = report.refusal or PackageReason.FETCH_FAILED
        return FetchFailed(reason=reason, message=report.message, retry_at=_now() + delay if report.retry else None)

    async def _inspect(self, package: CloacinaPackage, digest: str) -> None:
        wanted = _wanted(package)
        _, attempts = self._fetches.get(package.ref, (None, _Attempts()))
        self._verdicts[package.ref] = (wanted, digest, Unread(version=attempts.version, inspecting=True))
        try:
            verdict = await self._judge(package, digest, attempts.version)
        except ArchiveMissing as error:
            log.warning("%s: %s", package.ref, error)
            if self._fetches.get(package.ref, (None,))[0] == wanted:  # else it was fetched for a newer spec by now
                self._verdicts.pop(package.ref, None)
                self.lost(package.ref)
            return
        self._verdicts[package.ref] = (wanted, digest, verdict)
        await self._tidy(package)

    async def _judge(self, package: CloacinaPackage, digest: str, version: str | None) -> Accepted | Refused:
        """What its import says."""
        try:
            return await self._executor.import_package(package, digest)
        except ArchiveMissing:
            raise
        except AgreementError as error:
            return Refused(reason=PackageReason.NAMES_DISAGREE, message=str(error), version=version)
        except LoadError as error:
            return _refused_import(error, version)
        except StoreUnavailable:
            raise
        except CloacaError as error:
            return Refused(reason=PackageReason.IMPORT_CRASHED, message=str(error), version=version)


_OF_ARCHIVES = {
    "ArchiveInvalid": PackageReason.ARCHIVE_INVALID,
    "ManifestInvalid": PackageReason.MANIFEST_INVALID,
    "NamesDisagree": PackageReason.NAMES_DISAGREE,
    "PythonUnsupported": PackageReason.PYTHON_UNSUPPORTED,
}
"""What a fetch refuses an archive for, and not its source."""


def _refused_import(error: LoadError, version: str | None) -> Refused:
    reason = {
        ImportTimedOut: PackageReason.IMPORT_TIMED_OUT,
        ImportCrashed: PackageReason.IMPORT_CRASHED,
        PythonUnsupported: PackageReason.PYTHON_UNSUPPORTED,
    }.get(type(error), PackageReason.IMPORT_FAILED)
    message = f"{error}\n{error.traceback_text}" if error.traceback_text else str(error)
    return Refused(reason=reason, message=message, version=version)


def _wanted(package: CloacinaPackage) -> _Wanted:
    return (package.metadata.uid, package.metadata.generation, package.reconcile_requested_at)


def _now() -> datetime:
    return datetime.now(timezone.utc)
