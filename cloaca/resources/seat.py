"""The seat of a daemon: one object, which says who works on a store that several machines can reach.

A kind of the daemon's own: a cluster has a Lease instead, so it has no CRD.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cloaca.resources.meta import Resource
from cloaca.resources.schedules import RunnerSpec, RunnerStatus


class SeatSpec(RunnerSpec):
    """The process that has it, and where a person finds it."""

    host: str = ""
    home: str = ""


class Seat(Resource[SeatSpec, RunnerStatus]):
    """Held while its status changes: the holder's sign of life."""

    KIND: ClassVar[str] = "Seat"
    PLURAL: ClassVar[str] = "seats"

    kind: Literal["Seat"] = "Seat"
    status: RunnerStatus = Field(default_factory=RunnerStatus)
