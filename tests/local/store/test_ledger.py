"""The ledger of fired keys on a real store: segments, two writers, the bound."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cloacina_operator.core.turns import RunLimits
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.ledgers import Ledgers
from cloacina_operator.shell.queue import Queue
from cloacina_operator.shell.reconcile import Reconciler, utc_now

from cloaca.polling.ledger import FiredKeys
from cloaca.resources import ObjectMeta, RunPhase, Trigger, TriggerLedger, TriggerSpec, WorkflowRun
from cloaca.resources.ledger import KEYS_KEPT, KEYS_PER_SEGMENT
from cloaca.resources.run import RunSpec, RunStatus, TriggerReference
from cloaca.resources.trigger import PackageReference
from cloaca.store import Store, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(str(tmp_path / "store.db"))
    yield opened
    await opened.close()


@pytest.fixture
async def trigger(store: Store) -> TriggerReference:
    made = await store.create(
        Trigger(
            metadata=ObjectMeta(name="inbox"), spec=TriggerSpec(package_ref=PackageReference(name="p"), name="inbox")
        )
    )
    return TriggerReference(name=made.name, uid=made.metadata.uid)


def fired(trigger: TriggerReference, key: str | None, attempt: int = 0) -> WorkflowRun:
    spec = RunSpec(workflow="w", trigger_ref=trigger, key=key)
    return WorkflowRun(metadata=ObjectMeta(name="r"), spec=spec, status=RunStatus(attempt=attempt))


async def test_a_key_is_known_to_every_operator_as_soon_as_it_is_entered(
    store: Store, trigger: TriggerReference
) -> None:
    one, other = Ledgers(store), Ledgers(store)
    assert not await other.fired_before(fired(trigger, "a"))
    await one.enter(trigger, "default", ["a", "ünïcode/\n", "a"])
    assert await other.fired_before(fired(trigger, "a"))
    assert await other.fired_before(fired(trigger, "ünïcode/\n"))
    assert not await other.fired_before(fired(trigger, "b"))
    assert not await other.fired_before(fired(trigger, None))
    assert not await other.fired_before(fired(trigger, "a", attempt=1)), "a run that was started is not a repetition"
    (segment,) = await store.list(TriggerLedger)
    assert len(segment.spec.keys) == 2


async def test_two_operators_that_write_at_once_lose_no_key(store: Store, trigger: TriggerReference) -> None:
    operators = [Ledgers(store) for _ in range(4)]
    keys = [f"k{n}" for n in range(200)]
    await asyncio.gather(*(operators[n % 4].enter(trigger, "default", [key]) for n, key in enumerate(keys)))
    seen = FiredKeys(store, trigger, "default")
    await seen.refresh()
    assert [key for key in keys if key not in seen] == []


async def test_a_full_segment_is_followed_by_another_and_the_oldest_goes(
    store: Store, trigger: TriggerReference
) -> None:
    late = FiredKeys(store, trigger, "default")
    ledgers = Ledgers(store)
    await ledgers.enter(trigger, "default", ["first"])
    await late.refresh()
    batch = [f"k{n}" for n in range(KEYS_KEPT + KEYS_PER_SEGMENT)]
    await ledgers.enter(trigger, "default", batch)
    segments = await store.list(TriggerLedger)
    assert [len(one.spec.keys) for one in segments].count(KEYS_PER_SEGMENT) >= KEYS_KEPT // KEYS_PER_SEGMENT
    assert len(segments) == KEYS_KEPT // KEYS_PER_SEGMENT + 1
    await late.refresh()
    assert "first" not in late, "the oldest thousand was dropped"
    assert [key for key in batch[-KEYS_KEPT:] if key not in late] == []


async def test_the_ledger_goes_with_its_trigger(store: Store, trigger: TriggerReference) -> None:
    ledgers = Ledgers(store)
    await ledgers.enter(trigger, "default", ["a"])
    seen = await store.get(Trigger, "inbox")
    assert seen is not None
    await store.delete(seen.ref)
    assert await store.list(TriggerLedger) == ()
    await ledgers.enter(trigger, "default", ["b"])  # the operator was late: there is nothing to keep it for
    assert await store.list(TriggerLedger) == ()


async def test_a_trigger_that_was_made_again_has_a_ledger_of_its_own(store: Store, trigger: TriggerReference) -> None:
    ledgers = Ledgers(store)
    await ledgers.enter(trigger, "default", ["a"])
    seen = await store.get(Trigger, "inbox")
    assert seen is not None
    await store.delete(seen.ref)
    again = await store.create(Trigger(metadata=ObjectMeta(name="inbox"), spec=seen.spec))
    by = TriggerReference(name="inbox", uid=again.metadata.uid)
    assert not await ledgers.fired_before(fired(by, "a"))
    await ledgers.enter(by, "default", ["b"])
    assert await ledgers.fired_before(fired(by, "b"))


async def test_the_operator_does_not_hold_the_keys_of_a_trigger_that_is_gone(store: Store) -> None:
    reference = PackageReference(name="p")
    spec = TriggerSpec(package_ref=reference, name="inbox", successful_runs_history_limit=0)
    trigger = await store.create(Trigger(metadata=ObjectMeta(name="inbox"), spec=spec))
    by = TriggerReference(name="inbox", uid=trigger.metadata.uid)
    run = fired(by, "a").with_spec(package_ref=reference).with_status(phase=RunPhase.COMPLETED)
    await store.create(run)
    index = Index(store)
    reconciler = Reconciler(
        store=store,
        executor=SimpleNamespace(running=tuple),  # type: ignore[arg-type]  # nobody asks it for more where there is no package
        archives=None,  # type: ignore[arg-type]  # as above
        index=index,
        queue=Queue(),
        now=utc_now,
        limits=RunLimits(total=1),
        store_failed=lambda: None,
    )
    await index.load()
    before = ledgers_held()
    await reconciler.reconcile(trigger.ref)
    assert (await store.list(WorkflowRun), ledgers_held() - before) == ((), 1)
    await store.delete(trigger.ref)
    await reconciler.reconcile(trigger.ref)
    assert ledgers_held() - before == 0


def ledgers_held() -> int:
    gc.collect()
    return sum(isinstance(one, FiredKeys) for one in gc.get_objects())
