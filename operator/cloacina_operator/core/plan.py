"""What a decision is: the status that was observed, actions to take, and when to look again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from cloaca.resources import Trigger, WorkflowRun
from cloaca.resources.meta import Schema
from cloaca.resources.run import TriggerReference
from cloacina_operator.core.history import FinishedRun

StatusT = TypeVar("StatusT", bound=Schema)


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Get the archive from the package's source, and look at it without running it."""


@dataclass(frozen=True, kw_only=True)
class AwaitNews:
    """Have the package's source asked for news at its interval; where that is not possible ahead: fine."""


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Import the archive in a process of its own and report what it registers."""

    digest: str


@dataclass(frozen=True, kw_only=True)
class CreateTrigger:
    """Add a Trigger object; there already: fine."""

    trigger: Trigger


@dataclass(frozen=True, kw_only=True)
class EnsurePoller:
    """Have one poller for the package, on this archive."""

    digest: str


@dataclass(frozen=True, kw_only=True)
class StopPoller:
    """Have no poller for the package."""


@dataclass(frozen=True, kw_only=True)
class StartRun:
    """Start a process for a run, unless one for this attempt was started."""

    run: WorkflowRun
    digest: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class StopRun:
    """Ask the run's process to stop, and kill it when it does not; gone already: fine."""

    run: WorkflowRun


@dataclass(frozen=True, kw_only=True)
class CancelRun:
    """Set ``spec.cancel`` of another run."""

    name: str


@dataclass(frozen=True, kw_only=True)
class CollectRuns:
    """Delete finished runs, after their keys stand in the ledger of the trigger; gone already: fine."""

    runs: tuple[FinishedRun, ...]
    trigger: TriggerReference | None  # None: no trigger that still exists fired them, so no key of them can fire


@dataclass(frozen=True, kw_only=True)
class SubmitRun:
    """Create the run that a schedule makes; there already: fine."""

    run: WorkflowRun


Action = (
    Fetch
    | AwaitNews
    | Inspect
    | CreateTrigger
    | EnsurePoller
    | StopPoller
    | StartRun
    | StopRun
    | CancelRun
    | CollectRuns
    | SubmitRun
)


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[StatusT]):
    """One decision about one object."""

    status: StatusT  # what was observed, never what the actions will bring
    actions: tuple[Action, ...] = ()
    requeue_after: timedelta | None = None  # None: look again when something changes
