"""What every store promises, in the words of the protocol (cloaca/store/base.py)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from cloaca.errors import AlreadyExists, Conflict, Invalid, NotFound, StoreUnavailable
from cloaca.resources import (
    CloacinaPackage,
    ObjectMeta,
    PackageSpec,
    Ref,
    RunPhase,
    RunSpec,
    Trigger,
    TriggerLedger,
    TriggerSpec,
    WorkflowRun,
    owned_by,
)
from cloaca.resources.ledger import LedgerSpec
from cloaca.resources.package import PackageSource
from cloaca.resources.run import TriggerReference
from cloaca.resources.trigger import PackageReference
from cloaca.store import Change, Store


def run(name: str = "run", namespace: str = "default", **metadata: Any) -> WorkflowRun:
    return WorkflowRun(
        metadata=ObjectMeta(name=name, namespace=namespace, **metadata),
        spec=RunSpec(
            package_ref=PackageReference(name="demo"),
            workflow="demo",
            context={"file": "a.parquet", "n": [1, {"deep": None}]},
        ),
    )


def package(name: str = "demo") -> CloacinaPackage:
    return CloacinaPackage(
        metadata=ObjectMeta(name=name), spec=PackageSpec(source=PackageSource(url="https://example.com/demo.cloacina"))
    )


def trigger(owner: CloacinaPackage, name: str = "watch") -> Trigger:
    return Trigger(
        metadata=ObjectMeta(name=name, owner_references=(owned_by(owner),)),
        spec=TriggerSpec(package_ref=PackageReference(name=owner.name), name="watch"),
    )


# --- create and get


async def test_create_fills_in_what_the_store_decides_and_get_returns_the_same(store: Store) -> None:
    before = datetime.now(timezone.utc)
    made = await store.create(run(labels={"a": "b"}, annotations={"note": "x"}))
    metadata = made.metadata
    assert (metadata.name, metadata.namespace, metadata.generation) == ("run", "default", 1)
    assert metadata.uid
    assert metadata.resource_version
    assert metadata.creation_timestamp is not None
    assert before - timedelta(seconds=1) <= metadata.creation_timestamp <= datetime.now(timezone.utc)
    assert await store.get(WorkflowRun, "run") == made
    assert made.spec == run().spec


async def test_get_of_what_is_not_there_is_none(store: Store) -> None:
    await store.create(run())
    assert await store.get(WorkflowRun, "other") is None
    assert await store.get(WorkflowRun, "run", "elsewhere") is None
    assert await store.get(Trigger, "run") is None


@pytest.mark.parametrize("name", ["run\0", "\0", "\ud800", "no/way", "..", "é", ""], ids=ascii)
async def test_what_no_object_can_be_called_is_not_there(store: Store, name: str) -> None:
    await store.create(run(labels={"a": "b"}))
    assert await store.get(WorkflowRun, name) is None
    assert await store.get(WorkflowRun, "run", name) is None
    assert await store.delete(Ref(WorkflowRun.KIND, "default", name)) is False
    assert await store.delete(Ref(WorkflowRun.KIND, name or "x", "run")) is False
    assert await store.list(WorkflowRun, name or "x") == ()
    assert await store.list(WorkflowRun, labels={"a": name}) == ()
    assert len(await store.list(WorkflowRun)) == 1


async def test_create_keeps_a_status_that_comes_with_the_object(store: Store) -> None:
    made = await store.create(run().with_status(phase=RunPhase.RUNNING, attempt=1))
    assert made.status.phase is RunPhase.RUNNING
    assert await store.get(WorkflowRun, "run") == made


async def test_a_name_is_taken_once_for_each_kind_and_namespace(store: Store) -> None:
    await store.create(run())
    await store.create(run(namespace="other"))
    await store.create(package("run"))
    with pytest.raises(AlreadyExists, match="WorkflowRun default/run"):
        await store.create(run())


async def test_of_many_who_create_one_name_at_once_exactly_one_wins(store: Store) -> None:
    results = await asyncio.gather(*(store.create(run()) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, WorkflowRun) for result in results) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == 19


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        pytest.param(run("Upper"), "metadata.name", id="name"),
        pytest.param(run(""), "metadata.name", id="empty name"),
        pytest.param(run("a..b"), "metadata.name", id="empty part of a name"),
        pytest.param(run(namespace="no/way"), "metadata.namespace", id="namespace"),
        pytest.param(run(labels={"bad key!": "x"}), "metadata.labels", id="label key"),
        pytest.param(run(labels={"key": "bad value!"}), "metadata.labels.key", id="label value"),
        pytest.param(run(annotations={"bad key!": "x"}), "metadata.annotations", id="annotation key"),
        pytest.param(run().with_spec(context={"n": math.nan}), "spec", id="not a number"),
    ],
)
async def test_what_kubernetes_would_refuse_is_refused(store: Store, obj: WorkflowRun, path: str) -> None:
    with pytest.raises(Invalid, match=path):
        await store.create(obj)


async def test_runs_that_have_not_ended_are_found_whatever_became_of_the_others(store: Store) -> None:
    for phase in RunPhase:
        await store.create(run(f"as-{phase.value.lower()}").with_status(phase=phase))
    await store.create(package("no-run"))
    await store.create(run("new", namespace="other"))
    ending = await store.create(run("ending").with_status(phase=RunPhase.RUNNING))
    await store.write_status(ending.with_status(phase=RunPhase.COMPLETED))

    found = await store.unfinished_runs()
    assert [it.name for it in found] == ["as-pending", "as-running", "new"]
    assert found[0] == await store.get(WorkflowRun, "as-pending")


# --- update


async def test_generation_moves_with_the_spec_only(store: Store) -> None:
    made = await store.create(run())
    labelled = await store.update(made.with_metadata(labels={"a": "b"}))
    assert labelled.metadata.generation == 1
    assert labelled.metadata.labels == {"a": "b"}
    changed = await store.update(labelled.with_spec(cancel=True))
    assert changed.metadata.generation == 2
    status = await store.write_status(changed.with_status(phase=RunPhase.CANCELLED))
    assert status.metadata.generation == 2
    versions = [it.metadata.resource_version for it in (made, labelled, changed, status)]
    assert len(set(versions)) == 4


async def test_update_leaves_the_status_and_write_status_leaves_the_rest(store: Store) -> None:
    made = await store.create(run(labels={"a": "b"}))
    await store.write_status(made.with_status(phase=RunPhase.RUNNING))
    seen = await store.get(WorkflowRun, "run")
    assert seen is not None
    await store.update(seen.with_spec(cancel=True).with_status(phase=RunPhase.FAILED))
    seen = await store.get(WorkflowRun, "run")
    assert seen is not None
    assert (seen.spec.cancel, seen.status.phase) == (True, RunPhase.RUNNING)
    await store.write_status(seen.with_spec(cancel=False).with_status(phase=RunPhase.COMPLETED))
    seen = await store.get(WorkflowRun, "run")
    assert seen is not None
    assert (seen.spec.cancel, seen.status.phase, seen.metadata.labels) == (True, RunPhase.COMPLETED, {"a": "b"})


async def test_what_a_write_returns_is_what_is_stored(store: Store) -> None:
    made = await store.create(run(labels={"a": "b"}))
    written = await store.write_status(made.with_spec(cancel=True).with_status(attempt=1))
    assert (written.spec.cancel, written.status.attempt) == (False, 1)
    assert await store.get(WorkflowRun, "run") == written
    updated = await store.update(written.with_metadata(labels={}).with_status(attempt=9))
    assert (updated.metadata.labels, updated.status.attempt) == ({}, 1)
    assert await store.get(WorkflowRun, "run") == updated


async def test_a_stale_write_is_a_conflict_and_changes_nothing(store: Store) -> None:
    made = await store.create(run())
    newer = await store.write_status(made.with_status(phase=RunPhase.RUNNING))
    with pytest.raises(Conflict):
        await store.write_status(made.with_status(phase=RunPhase.FAILED))
    with pytest.raises(Conflict):
        await store.update(made.with_spec(cancel=True))
    assert await store.get(WorkflowRun, "run") == newer


async def test_a_write_without_a_resource_version_is_unconditional(store: Store) -> None:
    made = await store.create(run())
    await store.write_status(made.with_status(phase=RunPhase.RUNNING))
    written = await store.update(made.with_metadata(resource_version="").with_spec(cancel=True))
    assert (written.spec.cancel, written.status.phase) == (True, RunPhase.RUNNING)
    written = await store.write_status(made.with_metadata(resource_version="").with_status(phase=RunPhase.FAILED))
    assert (written.spec.cancel, written.status.phase) == (True, RunPhase.FAILED)


async def test_a_write_that_changes_nothing_moves_nothing(store: Store) -> None:
    made = await store.create(run(labels={"a": "b"}))
    assert await store.write_status(made) == made
    assert await store.update(made) == made
    assert await store.get(WorkflowRun, "run") == made


async def test_writes_to_what_is_gone_or_another_one_by_now_are_not_found(store: Store) -> None:
    made = await store.create(run())
    await store.delete(made.ref)
    with pytest.raises(NotFound):
        await store.write_status(made.with_status(phase=RunPhase.RUNNING))
    await store.create(run())
    with pytest.raises(NotFound):
        await store.update(made.with_metadata(resource_version="").with_spec(cancel=True))


async def test_increments_with_a_retry_on_conflict_lose_nothing(store: Store) -> None:
    await store.create(run())

    async def increment() -> None:
        while True:
            seen = await store.get(WorkflowRun, "run")
            assert seen is not None
            try:
                await store.write_status(seen.with_status(attempt=seen.status.attempt + 1))
            except Conflict:
                await asyncio.sleep(0)
            else:
                return

    await asyncio.gather(*(increment() for _ in range(50)))
    seen = await store.get(WorkflowRun, "run")
    assert seen is not None
    assert seen.status.attempt == 50


async def test_what_was_put_in_and_what_comes_out_share_nothing(store: Store) -> None:
    given = run()
    await store.create(given)
    given.spec.context["file"] = "changed"
    first = await store.get(WorkflowRun, "run")
    assert first is not None
    assert first.spec.context["file"] == "a.parquet"
    first.spec.context["n"].append("changed")
    again = await store.get(WorkflowRun, "run")
    assert again is not None
    assert again.spec.context["n"] == [1, {"deep": None}]


# --- list


async def test_list_is_by_namespace_and_name_and_of_one_kind(store: Store) -> None:
    for name, namespace in (("b", "two"), ("a", "two"), ("c", "one")):
        await store.create(run(name, namespace))
    await store.create(package())
    assert [item.name for item in await store.list(WorkflowRun)] == ["c", "a", "b"]
    assert [item.name for item in await store.list(WorkflowRun, "two")] == ["a", "b"]
    assert await store.list(WorkflowRun, "three") == ()


async def test_each_is_what_a_list_is_as_all_stood_when_it_was_asked_for(store: Store) -> None:
    one, two = [await store.create(run(name, labels={"app": name})) for name in ("one", "two")]
    both, chosen = await store.each(WorkflowRun), await store.each(WorkflowRun, "default", {"app": "two"})
    none = await store.each(WorkflowRun, labels={"app": "three"})
    await store.delete(one.ref)
    await store.write_status(two.with_status(phase=RunPhase.RUNNING))
    assert ([*both], [*chosen], [*none]) == ([one, two], [two], [])


async def test_a_selector_wants_all_its_labels_as_they_are_now(store: Store) -> None:
    await store.create(run("one", labels={"app": "x", "tier": "a"}))
    two = await store.create(run("two", labels={"app": "x", "tier": "b"}))
    await store.create(run("three"))
    assert [item.name for item in await store.list(WorkflowRun, labels={"app": "x"})] == ["one", "two"]
    assert [item.name for item in await store.list(WorkflowRun, labels={"app": "x", "tier": "a"})] == ["one"]
    await store.update(two.with_metadata(labels={"tier": "a"}))
    assert [item.name for item in await store.list(WorkflowRun, labels={"app": "x"})] == ["one"]
    assert [item.name for item in await store.list(WorkflowRun, labels={"tier": "a"})] == ["one", "two"]


# --- delete


async def test_delete_says_whether_there_was_something(store: Store) -> None:
    made = await store.create(run())
    assert not await store.delete(made.ref, "another uid")
    assert await store.delete(made.ref, made.metadata.uid)
    assert not await store.delete(made.ref)
    assert await store.get(WorkflowRun, "run") is None


async def test_deleting_an_owner_deletes_what_it_owns_however_deep(store: Store) -> None:
    owner = await store.create(package())
    other = await store.create(package("other"))
    child = await store.create(trigger(owner))
    await store.create(trigger(other, "stays"))
    await store.create(run("grandchild", owner_references=(owned_by(child),)))
    await store.create(run("stranger"))
    assert await store.delete(owner.ref)
    await eventually_gone(store, Trigger, "watch")
    await eventually_gone(store, WorkflowRun, "grandchild")
    assert [item.name for item in await store.list(Trigger)] == ["stays"]
    assert [item.name for item in await store.list(WorkflowRun)] == ["stranger"]


async def test_ownership_goes_deep_and_survives_an_update(store: Store) -> None:
    owner = await store.create(package())
    children = [await store.create(trigger(owner, "level-0"))]
    for level in range(1, 30):
        spec = children[-1].spec
        metadata = ObjectMeta(name=f"level-{level}", owner_references=(owned_by(children[-1]),))
        children.append(await store.create(Trigger(metadata=metadata, spec=spec)))
    await store.update(children[10].with_metadata(labels={"a": "b"}))
    await store.update(children[20].with_metadata(owner_references=()))
    assert await store.delete(owner.ref)
    await eventually_gone(store, Trigger, "level-19")
    assert [item.name for item in await store.list(Trigger)] == [f"level-{level}" for level in range(20, 30)]


async def test_an_object_of_the_same_name_is_not_the_owner(store: Store) -> None:
    first = await store.create(package())
    await store.delete(first.ref)
    second = await store.create(package())
    child = await store.create(trigger(second))
    assert not await store.delete(first.ref, first.metadata.uid)
    assert await store.get(Trigger, "watch") == child


async def test_nothing_is_created_for_an_owner_that_is_gone(store: Store) -> None:
    owner = await store.create(package())
    await store.delete(owner.ref)
    with pytest.raises(NotFound, match="owner"):
        await store.create(trigger(owner))


# --- changes


async def test_changes_tell_of_every_create_update_status_and_delete(store: Store) -> None:
    await store.create(run("before"))
    async with store.changes() as changes:
        made = await store.create(run())
        assert await following(changes) == Change(ref=made.ref)
        made = await store.update(made.with_spec(cancel=True))
        assert await following(changes) == Change(ref=made.ref)
        made = await store.write_status(made.with_status(phase=RunPhase.CANCELLED))
        assert await following(changes) == Change(ref=made.ref)
        await store.delete(made.ref)
        assert await following(changes) == Change(ref=made.ref, deleted=True)


async def test_a_cascade_tells_of_each_object(store: Store) -> None:
    owner = await store.create(package())
    child = await store.create(trigger(owner))
    async with store.changes() as changes:
        await store.delete(owner.ref)
        await told(changes, Change(ref=owner.ref, deleted=True), Change(ref=child.ref, deleted=True))


async def test_entering_and_then_listing_misses_nothing(store: Store) -> None:
    async def create_many() -> None:
        for number in range(100):
            await store.create(run(f"run-{number}"))
            await asyncio.sleep(0)

    creating = asyncio.ensure_future(create_many())
    await asyncio.sleep(0)
    async with store.changes() as changes:
        known = {item.ref for item in await store.list(WorkflowRun)}
        while len(known) < 100:
            known.add((await following(changes)).ref)
    await creating
    assert known == {Ref("WorkflowRun", "default", f"run-{number}") for number in range(100)}


async def test_a_write_that_changes_nothing_is_no_change(store: Store) -> None:
    made = await store.create(run())
    async with store.changes() as changes:
        await store.write_status(made)
        await store.update(made)
        with pytest.raises(Conflict):
            await store.update(made.with_metadata(resource_version="99999").with_spec(cancel=True))
        other = await store.create(run("other"))
        assert await following(changes) == Change(ref=other.ref)


async def test_writes_of_other_threads_and_loops_wake_a_follower_at_once(store: Store) -> None:
    async with store.changes() as changes:
        waiting = asyncio.ensure_future(following(changes))
        await asyncio.sleep(0.05)
        made = await asyncio.to_thread(lambda: asyncio.run(store.create(run())))
        assert await asyncio.wait_for(waiting, 0.5) == Change(ref=made.ref)


async def test_a_name_that_was_taken_anew_is_told_in_its_order(store: Store) -> None:
    made = await store.create(run())
    async with store.changes() as changes:
        await store.delete(made.ref)
        assert await following(changes) == Change(ref=made.ref, deleted=True)
        await store.create(run())
        assert await following(changes) == Change(ref=made.ref)


async def test_two_followers_each_see_everything(store: Store) -> None:
    async with store.changes() as first, store.changes() as second:
        made = await store.create(run())
        assert await following(first) == await following(second) == Change(ref=made.ref)


async def test_a_follower_that_is_not_listening_yet_loses_nothing(store: Store) -> None:
    async with store.changes() as changes:
        made = await store.create(run())
        gone = await store.create(run("gone"))
        await store.delete(gone.ref)
        await told(changes, Change(ref=made.ref), Change(ref=gone.ref, deleted=True))


# --- close


async def test_a_closed_store_says_so_and_may_be_closed_again(store: Store) -> None:
    made = await store.create(run())
    async with store.changes() as changes:
        waiting = asyncio.ensure_future(following(changes))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await waiting
    for call in (store.get(WorkflowRun, "run"), store.create(run("other")), store.delete(made.ref)):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call
    await store.close()


async def following(changes: AsyncIterator[Change]) -> Change:
    return await asyncio.wait_for(changes.__anext__(), 90)  # a cluster's collector learns of new kinds every 30 s


async def told(changes: AsyncIterator[Change], *wanted: Change) -> None:
    """Wait until all of ``wanted`` came; a change that was overtaken by the next may come as well."""
    missing = set(wanted)
    while missing:
        missing.discard(await following(changes))


async def eventually_gone(store: Store, kind: type[Any], name: str) -> None:
    """Collection is at once here and a little later on a cluster."""
    async with store.changes() as changes:
        while await store.get(kind, name) is not None:
            await following(changes)


# --- what only the operator writes


async def test_a_ledger_is_kept_told_of_and_dropped_as_every_kind(store: Store) -> None:
    watched = await store.create(trigger(await store.create(package())))
    by = TriggerReference(name=watched.name, uid=watched.metadata.uid)
    async with store.changes() as changes:
        made = await store.create(
            TriggerLedger(metadata=ObjectMeta(name="ledger"), spec=LedgerSpec(trigger_ref=by, segment=1, keys=("a",)))
        )
        async for change in changes:
            if change.ref == made.ref:
                break
    added = await store.update(made.with_spec(keys=("a", "b")))
    assert await store.get(TriggerLedger, "ledger") == added
    assert await store.list(TriggerLedger) == (added,)
    with pytest.raises(Conflict):
        await store.update(made.with_spec(keys=("a", "c")))
    assert await store.delete(made.ref)
    assert await store.get(TriggerLedger, "ledger") is None
