"""A fire whose name somebody else has: it takes its second one, once, and waits where that is taken too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cloaca.polling import tick
from cloaca.polling.entry import Entry
from cloaca.polling.ledger import FiredKeys
from cloaca.polling.messages import Fire
from cloaca.polling.observe import Unobserved
from cloaca.polling.recorder import Found, Recorder
from cloaca.polling.submission import NamesTaken
from cloaca.resources import ConcurrencyPolicy, ObjectMeta, Ref, RunSpec, Trigger, TriggerSpec, WorkflowRun
from cloaca.resources.run import TriggerReference
from cloaca.resources.trigger import EffectiveSettings, PackageReference, PendingTick, TriggerStatus
from cloaca.store.sql.store import SqlStore

FIRE_ID = "0123456789abcdef0123456789abcdef"
DIGEST = f"sha256:{'1' * 64}"
FIRST, SECOND = "demo-watch-1", "demo-watch-0123456789ab"


@pytest.fixture
async def store() -> AsyncIterator[SqlStore]:
    store = await SqlStore.open(":memory:")
    yield store
    await store.close()


async def polled(store: SqlStore) -> tuple[Recorder, Entry, PendingTick]:
    """A recorder, a trigger, and a fire that its function gave."""
    settings = EffectiveSettings(
        workflow="demo", poll_interval="1s", concurrency_policy=ConcurrencyPolicy.ALLOW, timeout="1m", digest=DIGEST
    )
    spec = TriggerSpec(package_ref=PackageReference(name="demo"), name="watch")
    metadata = ObjectMeta(name="demo-watch")
    trigger = await store.create(Trigger(metadata=metadata, spec=spec, status=TriggerStatus(effective=settings)))
    by = TriggerReference(name=trigger.name, uid=trigger.metadata.uid)
    entry = Entry(trigger=trigger, status=trigger.status, fired=FiredKeys(store, by, "default"))
    recorder = Recorder(store, package="demo", namespace="default", observer=Unobserved())
    return recorder, entry, tick.intend(trigger, [Fire()], None, [FIRE_ID])


async def squat(store: SqlStore, *names: str) -> None:
    for name in names:
        await store.create(WorkflowRun(metadata=ObjectMeta(name=name), spec=RunSpec(workflow="mine")))


async def fired(store: SqlStore) -> list[str]:
    return [run.name for run in await store.list(WorkflowRun) if run.spec.fire_id == FIRE_ID]


async def test_a_fire_takes_its_second_name_where_somebody_has_the_first(store: SqlStore) -> None:
    recorder, entry, pending = await polled(store)
    await squat(store, FIRST)
    await recorder.finish(entry, pending, Found())
    assert await fired(store) == [SECOND]


async def test_a_fire_that_has_its_second_name_is_not_made_again_when_the_first_is_free(store: SqlStore) -> None:
    recorder, entry, pending = await polled(store)
    await squat(store, FIRST)
    await recorder.finish(entry, pending, Found())
    await store.delete(Ref(WorkflowRun.KIND, "default", FIRST))
    found = Found()
    await recorder.finish(entry, pending, found, again=True)  # as who finds the intent of a dead poller
    assert (await fired(store), found.submitted) == ([SECOND], [SECOND])


async def test_a_fire_whose_names_are_both_taken_is_kept_and_says_what_to_delete(store: SqlStore) -> None:
    recorder, entry, pending = await polled(store)
    await squat(store, FIRST, SECOND)
    with pytest.raises(NamesTaken, match=f"runs {FIRST} and {SECOND} are somebody else's: delete one of them"):
        await recorder.finish(entry, pending, Found())
    assert entry.status.pending == pending
    assert not entry.active
    await store.delete(Ref(WorkflowRun.KIND, "default", SECOND))
    await recorder.finish(entry, pending, Found(), again=True)
    assert await fired(store) == [SECOND]
    assert entry.status.pending is None
