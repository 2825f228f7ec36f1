"""A run that names another package's trigger: never started, and nothing of that trigger hears of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timezone

import pytest
from cloacina_operator.core.runs import Execution, ObservedRun, plan
from cloacina_operator.shell.index import Index

from cloaca.polling.tick import fired_by, is_taken, same_fire
from cloaca.resources import CloacinaPackage, ObjectMeta, RunPhase, Trigger, WorkflowRun
from cloaca.resources.package import PackageSource, PackageSpec
from cloaca.resources.run import RunSpec, TriggerReference
from cloaca.resources.trigger import FireIntent, PackageReference, TriggerSpec
from cloaca.store import Change, Store, open_store

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    made = await open_store(":memory:")
    yield made
    await made.close()


async def scene(store: Store) -> tuple[Trigger, WorkflowRun, WorkflowRun]:
    """A trigger of ``good``, a run of it, and one of ``evil`` that says the same of itself."""
    for name in ("good", "evil"):
        source = PackageSource(url=f"file:///tmp/{name}.cloacina")
        await store.create(CloacinaPackage(metadata=ObjectMeta(name=name), spec=PackageSpec(source=source)))
    spec = TriggerSpec(package_ref=PackageReference(name="good"), name="inbox")
    trigger = await store.create(Trigger(metadata=ObjectMeta(name="good-inbox"), spec=spec))
    by = TriggerReference(name=trigger.name, uid=trigger.metadata.uid)
    runs = [
        await store.create(
            WorkflowRun(
                metadata=ObjectMeta(name=f"of-{name}"),
                spec=RunSpec(
                    workflow="w", package_ref=PackageReference(name=name), trigger_ref=by, key="k", fire_id="f"
                ),
            )
        )
        for name in ("good", "evil")
    ]
    return trigger, runs[0], runs[1]


async def test_it_neither_blocks_the_trigger_nor_is_kept_by_it(store: Store) -> None:
    trigger, good, evil = await scene(store)
    index = Index(store)
    await index.load()

    assert index.unfinished_of(trigger, 9) == (("of-good",), 1)
    assert index.siblings(good) == ()
    assert (index.owner(good), index.owner(evil)) == (None, "good")
    assert (index.keeps(good), index.keeps(evil)) == (True, False)

    for run in (good, evil):
        await store.write_status(run.with_status(phase=RunPhase.COMPLETED))
        await index.saw(Change(ref=run.ref))
    assert [run.name for run in index.finished_of(trigger)] == ["of-good"]


async def test_it_is_closed_with_the_reason_before_its_key_is_looked_for(store: Store) -> None:
    _, _, evil = await scene(store)
    decided = plan(ObservedRun(run=evil, digest=None, owner="good", fired_before=True, now=NOW))

    assert decided.actions == ()
    assert decided.status.phase is RunPhase.FAILED
    assert [c.reason for c in decided.status.conditions if c.type == "Ready"] == ["TriggerForeign"]
    assert decided.status.message == (
        "trigger 'good-inbox' is of package 'good', the run of package 'evil': name a trigger of its own, or none"
    )


async def test_what_runs_already_is_not_stopped_when_a_person_gives_its_trigger_to_another_package(
    store: Store,
) -> None:
    _, _, evil = await scene(store)
    started = evil.with_status(phase=RunPhase.RUNNING, attempt=1)
    decided = plan(ObservedRun(run=started, digest="d", owner="good", execution=Execution(attempt=1), now=NOW))
    assert decided.status == started.status


async def test_a_name_that_it_took_is_taken_and_no_repetition_though_it_copied_key_and_fire_id(store: Store) -> None:
    trigger, good, evil = await scene(store)
    fire = FireIntent(name="of-evil", fire_id="f", key="k", context={})

    assert (fired_by(good, trigger), fired_by(evil, trigger)) == (True, False)
    assert (same_fire(good, trigger, fire), same_fire(evil, trigger, fire)) == (True, False)
    assert (is_taken(good, trigger, fire), is_taken(evil, trigger, fire)) == (False, True)
