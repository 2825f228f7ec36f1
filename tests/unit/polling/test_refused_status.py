"""A status that the store will never take is an error of its poll, and does not stand in the way of the next ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timezone

import pytest

from cloaca.errors import Invalid
from cloaca.polling import tick
from cloaca.polling.entry import Entry
from cloaca.polling.ledger import FiredKeys
from cloaca.polling.messages import Fire
from cloaca.polling.observe import Unobserved
from cloaca.polling.recorder import Found, Recorder
from cloaca.resources import ConcurrencyPolicy, ObjectMeta, Trigger, TriggerSpec, WorkflowRun
from cloaca.resources.run import TriggerReference
from cloaca.resources.trigger import EffectiveSettings, PackageReference, TriggerStatus
from cloaca.store.sql.store import SqlStore

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
REFUSED = {"mean": float("nan")}  # no store keeps it: stands for what is too large for one of them


@pytest.fixture
async def store() -> AsyncIterator[SqlStore]:
    store = await SqlStore.open(":memory:")
    yield store
    await store.close()


async def polled(store: SqlStore) -> tuple[Recorder, Entry]:
    settings = EffectiveSettings(
        workflow="demo",
        poll_interval="1s",
        concurrency_policy=ConcurrencyPolicy.ALLOW,
        timeout="1m",
        digest=f"sha256:{'1' * 64}",
    )
    spec = TriggerSpec(package_ref=PackageReference(name="demo"), name="watch")
    metadata, status = ObjectMeta(name="demo-watch"), TriggerStatus(effective=settings, state={"n": 1})
    trigger = await store.create(Trigger(metadata=metadata, spec=spec, status=status))
    by = TriggerReference(name=trigger.name, uid=trigger.metadata.uid)
    entry = Entry(trigger=trigger, status=trigger.status, fired=FiredKeys(store, by, "default"))
    return Recorder(store, package="demo", namespace="default", observer=Unobserved()), entry


async def is_well(store: SqlStore, recorder: Recorder, entry: Entry) -> None:
    """The error of the poll is recorded, and the next fire is."""
    error = "Invalid: status.state.mean is nan"
    entry.unwritten.append(tick.error_tick(time=NOW, duration=0.1, error=error))
    entry.status = tick.after_error(entry.status, error)
    await recorder.write(entry)
    seen = (await store.get(Trigger, "demo-watch")).status
    assert (seen.last_error, seen.consecutive_errors, seen.pending, seen.state) == (error, 1, None, {"n": 1})
    found = Found()
    await recorder.submit(entry, (Fire(key="a"),), {"n": 2}, found)
    assert [run.name for run in await store.list(WorkflowRun)] == found.submitted
    await recorder.write(entry)
    assert (await store.get(Trigger, "demo-watch")).status.state == {"n": 2}


async def test_a_state_that_is_refused(store: SqlStore) -> None:
    recorder, entry = await polled(store)
    entry.status = entry.status.model_copy(update={"state": REFUSED})
    with pytest.raises(Invalid, match="nan"):
        await recorder.write(entry)
    await is_well(store, recorder, entry)


async def test_an_intent_that_is_refused_makes_none_of_its_runs(store: SqlStore) -> None:
    recorder, entry = await polled(store)
    with pytest.raises(Invalid, match="nan"):
        await recorder.submit(entry, (Fire(), Fire(context=REFUSED)), None, Found())
    assert await store.list(WorkflowRun) == ()
    await is_well(store, recorder, entry)
