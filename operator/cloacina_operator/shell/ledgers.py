"""Write the ledgers of triggers: the only place that does. Two operators at once are harmless: conflicts decide."""

from __future__ import annotations

from collections.abc import Sequence

from cloaca.errors import AlreadyExists, Conflict, NotFound
from cloaca.polling.ledger import FiredKeys
from cloaca.resources import ObjectMeta, Ref, Trigger, TriggerLedger, WorkflowRun
from cloaca.resources.ledger import KEYS_KEPT, KEYS_PER_SEGMENT, LedgerSpec
from cloaca.resources.meta import OwnerReference
from cloaca.resources.names import TRIGGER_UID_LABEL, key_hash, label_value, run_labels
from cloaca.resources.run import TriggerReference
from cloaca.store import Store

_SEGMENTS = KEYS_KEPT // KEYS_PER_SEGMENT + 1  # the last one is being filled


class Ledgers:
    """The ledgers of all triggers, read when they are needed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[Ref, tuple[str, FiredKeys]] = {}  # by trigger: its uid, and its ledger

    def forget(self, trigger: Ref) -> None:
        """The trigger is gone, and its ledger went with it. There after all: it is read again."""
        self._known.pop(trigger, None)

    async def fired_before(self, run: WorkflowRun) -> bool:
        """Whether the key of a run that was not started is one whose run was collected. Reads the store."""
        if run.spec.key is None or run.spec.trigger_ref is None or run.status.attempt:
            return False
        keys = self._of(run.spec.trigger_ref, run.metadata.namespace)
        await keys.refresh()
        return run.spec.key in keys

    async def enter(
        self, trigger: TriggerReference, namespace: str, keys: Sequence[str], package: str | None = None
    ) -> None:
        """Have ``keys`` in the ledger of ``trigger``, one of ``package``, when this returns; there already: fine."""
        ledger = self._of(trigger, namespace)
        while True:
            await ledger.refresh()
            hashed = [key_hash(trigger.uid, key) for key in dict.fromkeys(keys) if key not in ledger]
            if not hashed:
                return
            newest = ledger.newest
            try:
                if newest is None or len(newest.spec.keys) >= KEYS_PER_SEGMENT:
                    number = 1 if newest is None else newest.spec.segment + 1
                    await self._store.create(self._segment(ledger, trigger, namespace, package, number, hashed))
                    await self._drop_oldest(ledger, namespace)
                else:
                    room = KEYS_PER_SEGMENT - len(newest.spec.keys)
                    await self._store.update(newest.with_spec(keys=(*newest.spec.keys, *hashed[:room])))
            except (AlreadyExists, Conflict):
                continue  # another operator was quicker: look again
            except NotFound:
                self.forget(Ref(Trigger.KIND, namespace, trigger.name))
                return  # the trigger is gone, and nothing of it fires again

    def _segment(
        self,
        ledger: FiredKeys,
        trigger: TriggerReference,
        namespace: str,
        package: str | None,
        number: int,
        hashed: Sequence[str],
    ) -> TriggerLedger:
        return TriggerLedger(
            metadata=ObjectMeta(
                name=ledger.name(number),
                namespace=namespace,
                labels={**run_labels(package, trigger.name), TRIGGER_UID_LABEL: label_value(trigger.uid)},
                owner_references=(OwnerReference(kind="Trigger", name=trigger.name, uid=trigger.uid),),
            ),
            spec=LedgerSpec(trigger_ref=trigger, segment=number, keys=tuple(hashed[:KEYS_PER_SEGMENT])),
        )

    async def _drop_oldest(self, ledger: FiredKeys, namespace: str) -> None:
        for number in ledger.segments[: max(0, len(ledger.segments) + 1 - _SEGMENTS)]:
            await self._store.delete(Ref(TriggerLedger.KIND, namespace, ledger.name(number)))
            ledger.forget(number)

    def _of(self, trigger: TriggerReference, namespace: str) -> FiredKeys:
        ref = Ref(Trigger.KIND, namespace, trigger.name)
        uid, ledger = self._known.get(ref, ("", None))
        if ledger is None or uid != trigger.uid:
            ledger = FiredKeys(self._store, trigger, namespace)
            self._known[ref] = (trigger.uid, ledger)
        return ledger
