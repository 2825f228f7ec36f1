"""The seat of a daemon: one object, which says who works on a store that several machines can reach.

A kind of the daemon's own: a cluster has a Lease instead, so it has no CRD.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cloaca.resources.meta import Resource, Time
from cloaca.resources.schedules import RunnerSpec, RunnerStatus

DAEMON = "daemon"
"""Name of the only one in a store."""


class SeatSpec(RunnerSpec):
    """The process that has it, and where a person finds it."""

    host: str = ""
    home: str = ""


class SeatStatus(RunnerStatus):
    """Its sign of life, as others and as a person read it."""

    at: Time | None = None
    """When it gave the last sign, by its own clock; unset: it has given none."""


class Seat(Resource[SeatSpec, SeatStatus]):
    """Held while its status changes: the holder's sign of life."""

    KIND: ClassVar[str] = "Seat"
    PLURAL: ClassVar[str] = "seats"

    kind: Literal["Seat"] = "Seat"
    status: SeatStatus = Field(default_factory=SeatStatus)
