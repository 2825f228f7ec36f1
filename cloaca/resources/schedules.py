"""What a program's own runner keeps beside its runs: cron schedules, switches of its triggers, and its sign of life.

Kinds of library mode only: no cluster has them, so they have no CRD.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Literal

from pydantic import Field

from cloaca.resources.meta import Name, Resource, Schema, Time

SCHEDULE_LABEL = "cloacina.io/schedule"
"""On runs that a cron schedule made: its id."""


class CatchupPolicy(str, Enum):
    """What becomes of times that nobody was there for."""

    SKIP = "skip"
    """The last of them runs once, the others never."""
    RUN_ALL = "run_all"
    """Each of them runs, oldest first, up to the runner's limit; what is more is dropped, and said."""


class CronScheduleSpec(Schema):
    """What a program registered."""

    workflow: Name
    expression: str
    time_zone: str
    catchup_policy: CatchupPolicy = CatchupPolicy.SKIP
    enabled: bool = True
    changed_at: Time
    """When it was registered, changed or switched; times before it do not count."""


class DroppedTimes(Schema):
    """Times that came due while no runner was there, and for which no run is made."""

    noticed_at: Time
    count: int
    """As far as they were counted."""
    first: Time
    last: Time


class CronScheduleStatus(Schema):
    """What was done."""

    covered_until: Time | None = None
    """The runs of every time up to this one exist; unset: none were due yet."""
    last_run_at: Time | None = None
    """The last time that a run was made for; unset: none was."""
    dropped: tuple[DroppedTimes, ...] = ()
    """What run_all gave up because it was more than the runner's limit, newest first; the last few."""


class CronSchedule(Resource[CronScheduleSpec, CronScheduleStatus]):
    """Fires a workflow by the clock. Its name is the schedule's id."""

    KIND: ClassVar[str] = "CronSchedule"
    PLURAL: ClassVar[str] = "cronschedules"

    kind: Literal["CronSchedule"] = "CronSchedule"
    status: CronScheduleStatus = Field(default_factory=CronScheduleStatus)


class TriggerScheduleSpec(Schema):
    """What a person decided about a trigger of the program's own."""

    trigger: Name
    enabled: bool = True
    changed_at: Time


class TriggerScheduleStatus(Schema):
    """What its poller did."""

    holder: str | None = None
    """The runner that polls it; unset: nobody yet."""
    last_poll_at: Time | None = None
    """Written with each fire, and once a minute while it skips."""
    sequence: int = 0
    """The last fire; the next one's run is named after the number that follows."""
    last_run: str | None = None
    """Name of the run that it made last."""


class TriggerSchedule(Resource[TriggerScheduleSpec, TriggerScheduleStatus]):
    """A trigger that runners poll in their own process."""

    KIND: ClassVar[str] = "TriggerSchedule"
    PLURAL: ClassVar[str] = "triggerschedules"

    kind: Literal["TriggerSchedule"] = "TriggerSchedule"
    status: TriggerScheduleStatus = Field(default_factory=TriggerScheduleStatus)


class RunnerSpec(Schema):
    """The process of a runner, told so that another process of the same machine can see whether it lives."""

    machine: str = ""
    """Boot and process namespace; empty where the system does not tell."""
    pid: int = 0
    started: str = ""
    """The process's start time as the kernel counts it: a number given again is another process."""


class RunnerStatus(Schema):
    """Its sign of life."""

    beat: int = 0


class Runner(Resource[RunnerSpec, RunnerStatus]):
    """A DefaultRunner that is open. Runs carry its name in ``status.podName`` while they are its own."""

    KIND: ClassVar[str] = "Runner"
    PLURAL: ClassVar[str] = "runners"

    kind: Literal["Runner"] = "Runner"
    status: RunnerStatus = Field(default_factory=RunnerStatus)
