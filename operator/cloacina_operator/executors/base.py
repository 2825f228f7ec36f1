"""What the shell asks of whatever starts processes: children of a daemon, or Jobs and Deployments."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from cloaca.errors import LoadError
from cloaca.packages.acceptance import Accepted
from cloaca.processes.fetch_report import FetchReport
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloacina_operator.core.packages import Hindrance, PollerState
from cloacina_operator.core.runs import Execution


class ArchiveMissing(LoadError):
    """The bytes of an archive are not there any more: they have to be fetched again."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How a source is asked for news."""

    every: timedelta
    after: timedelta  # before the first time


class Executor(Protocol):
    """Starts, stops and knows processes. Every call is idempotent; what changes by itself is told through a callback
    with the reference of the object that it concerns."""

    async def fetch(
        self, package: CloacinaPackage, known: Sequence[str], revision: str | None, waiting: Waiting | None = None
    ) -> FetchReport:
        """Get the archive in a process of its own, look at it without running it, and keep it. ``known``: digests of
        archives that need no look; ``revision``: of the first of them, as its source calls it. ``waiting``: return when
        the source has another one, or fails. Raises StoreError."""
        ...

    def awaits_news(self, package: CloacinaPackage) -> bool:
        """Whether ``fetch`` can wait for news of the package's source; else it is called again and again."""
        ...

    async def import_package(self, package: CloacinaPackage, digest: str) -> Accepted:
        """Import an archive that was fetched in a process of its own, and compare it with its manifest.

        Raises LoadError, AgreementError, and ArchiveMissing where it has to be fetched again.
        """
        ...

    async def has_archive(self, package: CloacinaPackage, digest: str) -> bool:
        """Whether the bytes of an archive of the package are there."""
        ...

    async def keep_archives(self, package: CloacinaPackage, digests: Collection[str]) -> None:
        """Let go of the bytes and processes of all other archives of the package that nothing runs on."""
        ...

    def inspection(self, package: Ref) -> Hindrance | None:
        """What keeps ``import_package`` from its end; None: nothing, or nothing is imported."""
        ...

    def poller(self, package: Ref) -> PollerState | None:
        """The package's poller, or None."""
        ...

    async def ensure_poller(self, package: CloacinaPackage, digest: str) -> None:
        """Have one poller for the package, on that archive; one on another archive ends first."""
        ...

    async def stop_poller(self, package: Ref) -> None:
        """Have none."""
        ...

    async def remove_package(self, package: Ref) -> None:
        """The package is gone: let go of everything of it."""
        ...

    def execution(self, run: Ref) -> Execution | None:
        """The process of the run's last attempt that this executor knows of."""
        ...

    def running(self) -> Collection[Ref]:
        """The runs that have a process which has not ended, by whomever it was started."""
        ...

    async def start_run(self, run: WorkflowRun, package: CloacinaPackage, digest: str, attempt: int) -> None:
        """Start a process for that attempt; started already: fine."""
        ...

    async def stop_run(self, run: Ref) -> None:
        """Ask its process to stop, and kill it when it does not; gone already: fine."""
        ...

    def forget_run(self, run: Ref) -> None:
        """The run is finished: nobody will ask about its process any more."""
        ...

    async def remove_run(self, run: Ref) -> None:
        """The run is gone: end its process, if there is one, now."""
        ...
