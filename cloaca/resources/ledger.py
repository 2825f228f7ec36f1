"""TriggerLedger: the keys of a trigger whose runs were collected, so that none of them fires again."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloaca.resources.columns import AGE, Column
from cloaca.resources.meta import Resource, Schema
from cloaca.resources.names import KEY_HASH_LENGTH
from cloaca.resources.run import TriggerReference

KEYS_PER_SEGMENT = 1_000
KEYS_KEPT = 10_000
"""At least so many of a trigger's last keys are remembered; the oldest thousand goes when there is one too many."""

KeyHash = Annotated[str, Field(max_length=KEY_HASH_LENGTH)]


class LedgerSpec(Schema):
    """Written by the operator alone; keys are added at the end, and a full segment never changes again."""

    trigger_ref: TriggerReference
    """Whose keys these are."""
    segment: int = Field(ge=1)
    """Which part of the trigger's ledger this is; a higher one has later keys."""
    keys: tuple[KeyHash, ...] = Field(default=(), max_length=KEYS_PER_SEGMENT)
    """Of each key the hash that the name of its run ended in, oldest first."""


class LedgerStatus(Schema):
    """Nothing is observed of a ledger."""


class TriggerLedger(Resource[LedgerSpec, LedgerStatus]):
    """One part of the list of keys that a trigger has fired and whose runs are gone. Not for people to write."""

    KIND: ClassVar[str] = "TriggerLedger"
    PLURAL: ClassVar[str] = "triggerledgers"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("cledger",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column(header="Trigger", path=".spec.triggerRef.name", description="Whose keys these are."),
        Column(header="Segment", path=".spec.segment", type="integer", description="Which part it is."),
        AGE,
    )

    kind: Literal["TriggerLedger"] = "TriggerLedger"
    status: LedgerStatus = Field(default_factory=LedgerStatus)
