"""Read which keys of a trigger have fired though their runs are gone. Writes nothing."""

from __future__ import annotations

from cloaca.resources.ledger import KEYS_PER_SEGMENT, TriggerLedger
from cloaca.resources.names import TRIGGER_UID_LABEL, key_hash, label_value, ledger_name
from cloaca.resources.run import TriggerReference
from cloaca.store.base import Store


class FiredKeys:
    """The ledger of one trigger, as it was when ``refresh`` last returned."""

    def __init__(self, store: Store, trigger: TriggerReference, namespace: str) -> None:
        self._store = store
        self._trigger = trigger
        self._namespace = namespace
        self._segments: dict[int, frozenset[str]] = {}
        self._known = False
        self.newest: TriggerLedger | None = None
        """The segment to which keys are added; None: there is none yet."""

    def __contains__(self, key: str) -> bool:
        hashed = key_hash(self._trigger.uid, key)
        return any(hashed in keys for keys in self._segments.values())

    @property
    def segments(self) -> tuple[int, ...]:
        """The numbers of those there are, oldest first."""
        return tuple(sorted(self._segments))

    def name(self, segment: int) -> str:
        """Of the object that has that segment."""
        return ledger_name(self._trigger.name, self._trigger.uid, segment)

    async def refresh(self) -> None:
        """See every key that was entered before this call. Reads all at first, then only what can have changed."""
        if not self._known:
            await self._read_all()
            return
        number = 1 if self.newest is None else self.newest.spec.segment
        while (segment := await self._store.get(TriggerLedger, self.name(number), self._namespace)) is not None:
            self._keep(segment)
            if len(segment.spec.keys) < KEYS_PER_SEGMENT:
                return
            number += 1
        if self.newest is not None and number <= self.newest.spec.segment:
            await self._read_all()  # the newest that we knew is gone: others went on without us for long

    async def _read_all(self) -> None:
        labels = {TRIGGER_UID_LABEL: label_value(self._trigger.uid)}
        self._segments, self.newest = {}, None
        for segment in await self._store.list(TriggerLedger, self._namespace, labels):
            self._keep(segment)
        self._known = True

    def _keep(self, segment: TriggerLedger) -> None:
        self._segments[segment.spec.segment] = frozenset(segment.spec.keys)
        if self.newest is None or segment.spec.segment >= self.newest.spec.segment:
            self.newest = segment

    def forget(self, segment: int) -> None:
        """It was dropped."""
        self._segments.pop(segment, None)
