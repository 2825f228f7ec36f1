"""What the shell asks of whatever starts processes: children of a daemon, or Jobs and Deployments."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from cloaca.packages.inventory import Inventory
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloacina_operator.core.packages import Hindrance, PollerState
from cloacina_operator.core.runs import Execution


class Executor(Protocol):
    """Starts, stops and knows processes. Every call is idempotent; what changes by itself is told through a callback
    with the reference of the object that it concerns."""

    async def import_package(self, package: CloacinaPackage, digest: str) -> Inventory:
        """Import the archive in a process of its own. Raises LoadError."""
        ...

    async def discard(self, package: CloacinaPackage, digest: str) -> None:
        """Let go of what ``import_package`` started: the archive was refused."""
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
