"""Trigger: how one trigger function of a package is polled, and what its polls did."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from cloaca.resources.columns import AGE, Column, condition_column
from cloaca.resources.meta import (
    DURATION,
    NAME_RULE,
    TIME_ZONE,
    AtCreation,
    Conditions,
    Duration,
    JsonObject,
    Name,
    PollInterval,
    Resource,
    Schema,
    Time,
    cel,
)
from cloaca.resources.meta import PackageReference as PackageReference  # noqa: PLC0414  # who reads triggers gets it from here
from cloaca.resources.names import RESERVED_TRIGGER_NAME


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
    """It made runs."""
    SKIPPED = "Skipped"
    """The function found nothing to do."""
    DEDUPLICATED = "Deduplicated"
    """Every key that it fired had fired before."""
    BLOCKED = "Blocked"
    """Its fire waits for the end of the active run."""
    ERROR = "Error"
    """The function raised, returned something wrong, timed out or crashed."""


_SPAN: dict[str, Any] = {"maxLength": 64, "pattern": DURATION}
NAME_RESERVED = (
    "metadata.name must not end in -poller, -inspect or -source: the pods of its runs would be taken for others that "
    "work for a package; choose another name"
)
_TIME_ZONE_ALONE = "timeZone says nothing without schedule: set schedule, or remove timeZone"
_DEADLINE_ALONE = "startingDeadlineSeconds says nothing without schedule: set schedule, or remove it"
_BOTH_CLOCKS = "schedule replaces polling: remove pollInterval or schedule"


class TriggerSpec(Schema):
    """What a person declares of a trigger; what is left out comes from the package's manifest."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("has(self.schedule) || !has(self.timeZone)", _TIME_ZONE_ALONE),
            ("has(self.schedule) || !has(self.startingDeadlineSeconds)", _DEADLINE_ALONE),
            ("!has(self.schedule) || !has(self.pollInterval)", _BOTH_CLOCKS),
        )
    )

    package_ref: PackageReference
    """The package whose function is polled."""
    name: Name
    """Of the function, as in ``@cloaca.trigger(name=…)``."""
    workflow: Name | None = None
    """The workflow to fire; unset: as in the manifest."""
    poll_interval: PollInterval | None = None
    """How often the function is called, at least 100ms; unset: as in the manifest."""
    allow_concurrent: bool | None = None
    """Whether runs may overlap; unset: as in the manifest."""
    concurrency_policy: ConcurrencyPolicy | None = None
    """Wins over allowConcurrent (false is Forbid, true is Allow); unset: allowConcurrent decides."""
    config: JsonObject | None = None
    """What the function gets as ``config``, instead of the manifest's; unset: as in the manifest."""
    timeout: Duration = "60s"
    """How long one call of the function may take before its process is killed."""
    suspend: bool = False
    """True: the function is not called; runs that exist finish."""
    schedule: str | None = Field(default=None, min_length=1, max_length=128)
    """Cron expression: fire by the clock instead of polling; unset: poll."""
    time_zone: str | None = Field(default=None, max_length=64, pattern=TIME_ZONE)
    """IANA name for ``schedule``; unset: UTC."""
    starting_deadline_seconds: int | None = Field(default=None, ge=0)
    """A time of ``schedule`` missed by more seconds than this is given up; unset: the last missed one is made up."""
    successful_runs_history_limit: int = Field(default=3, ge=0)
    """How many completed runs are kept."""
    failed_runs_history_limit: int = Field(default=1, ge=0)
    """How many failed and cancelled runs are kept."""

    @model_validator(mode="after")
    def _clock_or_poll(self) -> TriggerSpec:
        faults = []
        if self.schedule is None and self.time_zone is not None:
            faults.append(_TIME_ZONE_ALONE)
        if self.schedule is None and self.starting_deadline_seconds is not None:
            faults.append(_DEADLINE_ALONE)
        if self.schedule is not None and self.poll_interval is not None:
            faults.append(_BOTH_CLOCKS)
        if faults:
            raise ValueError("; ".join(faults))
        return self


class EffectiveSettings(Schema):
    """What holds after the manifest and the spec are put together."""

    workflow: str
    """The workflow that is fired."""
    poll_interval: str = Field(json_schema_extra=_SPAN)
    """How often the function is called."""
    concurrency_policy: ConcurrencyPolicy
    """What happens while a run of the trigger is active."""
    timeout: str = Field(json_schema_extra=_SPAN)
    """How long one call may take."""
    config: JsonObject = Field(default_factory=dict)
    """What the function gets as ``config``."""
    digest: str
    """The archive whose function is polled, and to which new runs are pinned."""


class FireIntent(Schema):
    """One fire, recorded before its run is created."""

    name: str
    """Of the WorkflowRun."""
    fire_id: str
    """Tells this fire from another one that took the name."""
    key: str | None = None
    """One run per trigger and key, ever; unset: the fire has none."""
    context: JsonObject = Field(default_factory=dict)
    """What the run gets."""


class PendingTick(Schema):
    """The write-ahead record of one tick: whoever starts again finishes it first."""

    tick: int
    """Its number: sequence + 1."""
    digest: str
    """The archive to which its runs are pinned."""
    workflow: str
    """What its runs execute."""
    fires: tuple[FireIntent, ...] = ()
    """In the order in which the function gave them."""
    state: JsonObject | None = None
    """What ``status.state`` becomes when the runs exist; unset: it stays."""


class Tick(Schema):
    """One poll, as a person sees it afterwards."""

    time: Time
    """When the function was called."""
    duration_ms: float = 0.0
    """How long the call took."""
    outcome: TickOutcome
    """How it ended."""
    reason: str = ""
    """Why, where the outcome does not say it."""
    runs: tuple[str, ...] = ()
    """Names of the runs that it made."""


class TriggerStatus(Schema):
    """The operator writes conditions, effective and active, and all of a trigger with a schedule; else the poller."""

    observed_generation: int = 0
    """The metadata.generation that was looked at; an older one than the object's: out of date."""
    conditions: Conditions = ()
    """Ready, Polling and Degraded."""
    effective: EffectiveSettings | None = None
    """The settings that hold, manifest and spec together; unset: they could not be told yet."""
    active: tuple[str, ...] = ()
    """Names of the runs that are not finished, oldest first, at most 100."""
    active_count: int = Field(default=0, ge=0)
    """How many runs are not finished."""
    last_poll_time: Time | None = None
    """When the function was last called; written at most once a minute while it skips."""
    last_fire_time: Time | None = None
    """When it last made a run."""
    next_poll_time: Time | None = None
    """When it is to be called next; unset: not planned."""
    last_run: str | None = None
    """Name of the run that it made last."""
    poller: int = 0
    """Which poller polls it, counted from 1. One that finds a higher number here was replaced, and polls it no more."""
    sequence: int = 0
    """The last tick that fired; the next one is named after the number that follows."""
    pending: PendingTick | None = None
    """A tick whose runs may not all exist yet; unset: nothing is open."""
    consecutive_errors: int = 0
    """How many of the last polls failed in a row; polls back off with it."""
    last_error: str | None = None
    """What the last failed poll said; unset: none failed, or one succeeded since."""
    state: JsonObject = Field(default_factory=dict)
    """The function's own durable state, saved together with the fires it belongs to."""
    ticks: tuple[Tick, ...] = ()
    """Newest first, at most 20."""
    scheduled_by: str | None = None
    """The schedule that ``scheduledUntil`` belongs to; unset: the trigger is polled, or rests."""
    scheduled_until: Time | None = None
    """Every time of the schedule up to this one has its run, or was given up."""


class Trigger(Resource[TriggerSpec, TriggerStatus]):
    """One trigger function of a package, polled."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            NAME_RULE, AtCreation(f"!self.metadata.name.matches('{RESERVED_TRIGGER_NAME}')", NAME_RESERVED)
        )
    )

    KIND: ClassVar[str] = "Trigger"
    PLURAL: ClassVar[str] = "triggers"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("ctrig",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column(header="Package", path=".spec.packageRef.name", description="Whose function is polled."),
        Column(header="Workflow", path=".status.effective.workflow", description="What it fires."),
        Column(header="Interval", path=".status.effective.pollInterval", description="How often it is polled."),
        Column(header="Suspended", path=".spec.suspend", type="boolean", description="Whether it rests."),
        Column(header="Last Fire", path=".status.lastFireTime", type="date", description="Since it last made a run."),
        Column(
            header="Errors",
            path=".status.consecutiveErrors",
            type="integer",
            description="How many of the last polls failed in a row.",
        ),
        condition_column("Ready", "Ready", description="Whether package, function, workflow and settings fit."),
        AGE,
        Column(header="Last Run", path=".status.lastRun", priority=1, description="The run that it made last."),
        Column(header="Last Poll", path=".status.lastPollTime", type="date", priority=1, description="Since then."),
        Column(header="Schedule", path=".spec.schedule", priority=1, description="Fires by the clock instead."),
        Column(
            header="Policy",
            path=".status.effective.concurrencyPolicy",
            priority=1,
            description="What happens while a run of it is active.",
        ),
        condition_column("Reason", "Ready", "reason", priority=1, description="Why Ready is what it is."),
        Column(header="Last Error", path=".status.lastError", priority=1, description="Of the last failed poll."),
    )
    SELECTABLE: ClassVar[tuple[str, ...]] = (".spec.packageRef.name",)

    kind: Literal["Trigger"] = "Trigger"
    status: TriggerStatus = Field(default_factory=TriggerStatus)
