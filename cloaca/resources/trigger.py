"""Trigger: how one trigger function of a package is polled, and what its polls did."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from pydantic import Field

from cloaca.resources.meta import Condition, Resource, Schema, Time

DURATION = r"^[0-9]+(ms|s|m|h)$"


class ConcurrencyPolicy(str, Enum):
    """What happens while a run of the trigger is active."""

    FORBID = "Forbid"
    """The function is not called; a fire that meets an active run waits for its end. Nothing is dropped."""
    ALLOW = "Allow"
    """Runs overlap freely."""
    REPLACE = "Replace"
    """The active run is cancelled, its end awaited, then the new one starts."""


class TickOutcome(str, Enum):
    """How one poll ended."""

    FIRED = "Fired"
    SKIPPED = "Skipped"
    DEDUPLICATED = "Deduplicated"
    BLOCKED = "Blocked"
    ERROR = "Error"


class PackageReference(Schema):
    """A CloacinaPackage in the same namespace."""

    name: str = Field(min_length=1)


class TriggerSpec(Schema):
    """What a person declares of a trigger; what is left out comes from the package's manifest."""

    package_ref: PackageReference
    name: str = Field(min_length=1)
    """As in ``@cloaca.trigger(name=…)``."""
    workflow: str | None = None
    poll_interval: str | None = Field(default=None, pattern=DURATION)
    """An integer and ms, s, m or h; at least 100ms."""
    allow_concurrent: bool | None = None
    concurrency_policy: ConcurrencyPolicy | None = None
    """Wins over allowConcurrent (false is Forbid, true is Allow)."""
    config: dict[str, Any] | None = None
    timeout: str = Field(default="60s", pattern=DURATION)
    """How long one call of the function may take before its process is killed."""
    suspend: bool = False
    schedule: str | None = None
    """Cron expression: fire by the clock instead of polling."""
    time_zone: str | None = None
    """IANA name for ``schedule``; unset: UTC."""
    starting_deadline_seconds: int | None = Field(default=None, ge=0)
    successful_runs_history_limit: int = Field(default=3, ge=0)
    failed_runs_history_limit: int = Field(default=1, ge=0)


class EffectiveSettings(Schema):
    """What holds after the manifest and the spec are put together."""

    workflow: str
    poll_interval: str
    concurrency_policy: ConcurrencyPolicy
    timeout: str
    config: dict[str, Any] = Field(default_factory=dict)
    digest: str
    """The archive whose function is polled, and to which new runs are pinned."""


class FireIntent(Schema):
    """One fire, recorded before its run is created."""

    name: str
    """Of the WorkflowRun."""
    fire_id: str
    key: str | None = None
    context: dict[str, Any] = Field(default_factory=dict)


class PendingTick(Schema):
    """The write-ahead record of one tick: whoever starts again finishes it first."""

    tick: int
    digest: str
    workflow: str
    fires: tuple[FireIntent, ...] = ()
    state: dict[str, Any] | None = None
    """What ``status.state`` becomes when the runs exist; unset: it stays."""


class Tick(Schema):
    """One poll, as a person sees it afterwards."""

    time: Time
    duration_ms: float = 0.0
    outcome: TickOutcome
    reason: str = ""
    runs: tuple[str, ...] = ()
    """Names of the runs that it made."""


class TriggerStatus(Schema):
    """The operator writes conditions, effective and active; the poller writes the rest."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    effective: EffectiveSettings | None = None
    active: tuple[str, ...] = ()
    """Names of runs that are not finished."""
    last_poll_time: Time | None = None
    last_fire_time: Time | None = None
    next_poll_time: Time | None = None
    last_run: str | None = None
    sequence: int = 0
    """The last tick that fired; the next one is named after the number that follows."""
    pending: PendingTick | None = None
    consecutive_errors: int = 0
    last_error: str | None = None
    state: dict[str, Any] = Field(default_factory=dict)
    """The function's own durable state, saved together with the fires it belongs to."""
    ticks: tuple[Tick, ...] = ()
    """Newest first, at most 20."""


class Trigger(Resource[TriggerSpec, TriggerStatus]):
    """One trigger function of a package, polled."""

    KIND: ClassVar[str] = "Trigger"
    PLURAL: ClassVar[str] = "triggers"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("ctrig",)

    kind: str = "Trigger"
    status: TriggerStatus = Field(default_factory=TriggerStatus)
