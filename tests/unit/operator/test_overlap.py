"""Runs of a trigger that may not overlap: who waits for whom, also where little is known."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from cloacina_operator.core.plan import StartRun
from cloacina_operator.core.runs import ObservedRun, Sibling, plan, policy_of
from cloacina_operator.shell.index import Index

from cloaca.resources import ConcurrencyPolicy, ObjectMeta, RunPhase, RunSpec, Trigger, TriggerSpec, WorkflowRun
from cloaca.resources.run import RunStatus, TriggerReference
from cloaca.resources.trigger import EffectiveSettings, PackageReference, TriggerStatus
from cloaca.store.base import Change
from cloaca.store.sql.store import SqlStore

ALLOW, FORBID, REPLACE = ConcurrencyPolicy.ALLOW, ConcurrencyPolicy.FORBID, ConcurrencyPolicy.REPLACE
NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
BY = TriggerReference(name="watch", uid="t")


def run(name: str, *, by: TriggerReference | None = BY, **status: Any) -> WorkflowRun:
    spec = RunSpec(workflow="demo", package_ref=PackageReference(name="demo"), trigger_ref=by)
    metadata = ObjectMeta(name=name, uid=name, creation_timestamp=NOW)
    return WorkflowRun(metadata=metadata, spec=spec, status=RunStatus(**status))


def trigger(effective: ConcurrencyPolicy | None = None, *, uid: str = "t", **spec: Any) -> Trigger:
    settings = None
    if effective is not None:
        settings = EffectiveSettings(
            workflow="demo", poll_interval="1s", concurrency_policy=effective, timeout="1m", config={}, digest="d"
        )
    return Trigger(
        metadata=ObjectMeta(name="watch", uid=uid),
        spec=TriggerSpec(package_ref=PackageReference(name="demo"), name="watch", **spec),
        status=TriggerStatus(effective=settings),
    )


@pytest.mark.parametrize(
    ("of", "by", "policy"),
    [
        pytest.param(None, None, None, id="nobody fired it"),
        pytest.param(None, BY, FORBID, id="its trigger is gone, or not seen yet"),
        pytest.param(trigger(ALLOW, uid="other"), BY, FORBID, id="another trigger has the name by now"),
        pytest.param(trigger(), BY, FORBID, id="the trigger has no settings yet, or lost them"),
        pytest.param(trigger(allow_concurrent=True), BY, ALLOW, id="no settings, and a person allowed it"),
        pytest.param(trigger(concurrency_policy=REPLACE), BY, REPLACE, id="no settings, and a person said what holds"),
        pytest.param(trigger(ALLOW, allow_concurrent=False), BY, ALLOW, id="settings say it"),
    ],
)
def test_where_nobody_knows_runs_do_not_overlap(
    of: Trigger | None, by: TriggerReference | None, policy: ConcurrencyPolicy | None
) -> None:
    assert policy_of(run("a", by=by), of) is policy


@pytest.mark.parametrize(
    ("begun", "siblings", "starts"),
    [
        pytest.param(False, {}, True, id="alone"),
        pytest.param(False, {"a": False}, False, id="an older one, or one of the same second whose name comes first"),
        pytest.param(False, {"c": False}, True, id="a younger one"),
        pytest.param(False, {"c": True}, False, id="a younger one that was started before this one was seen"),
        pytest.param(True, {"a": False}, True, id="its turn had come before the other was seen"),
    ],
)
def test_a_run_whose_turn_has_come_keeps_it(begun: bool, siblings: dict[str, bool], starts: bool) -> None:
    others = tuple(Sibling(name=name, created=NOW, started=started) for name, started in siblings.items())
    decided = plan(ObservedRun(run=run("b"), digest="d", policy=FORBID, siblings=others, begun=begun, now=NOW))
    assert any(isinstance(action, StartRun) for action in decided.actions) is starts


async def test_a_start_that_was_tried_is_known_until_the_run_has_ended() -> None:
    store = await SqlStore.open(":memory:")
    first, second = [await store.create(run(name)) for name in ("b", "a")]
    index = Index(store)
    await index.load()
    index.begins(first)
    assert [sibling.started for sibling in index.siblings(second)] == [True]
    await index.saw(Change(ref=first.ref))
    await index.load()
    assert (index.has_begun(first), index.has_begun(second)) == (True, False)
    await store.write_status(first.with_status(phase=RunPhase.COMPLETED))
    await index.saw(Change(ref=first.ref))
    assert not index.has_begun(first)
    await store.close()


async def test_runs_that_wait_are_looked_at_when_what_holds_between_them_changes() -> None:
    store = await SqlStore.open(":memory:")
    watch = await store.create(trigger(FORBID, uid=""))
    by = TriggerReference(name="watch", uid=watch.metadata.uid)
    waiting = await store.create(run("waiting", by=by))
    await store.create(run("running", by=by, phase=RunPhase.RUNNING, attempt=1))
    index = Index(store)
    await index.load()
    looked_at = []
    for status in (watch.with_status(sequence=1).status, trigger(ALLOW).status):
        watch = await store.write_status(watch.model_copy(update={"status": status}))
        looked_at.append(await index.saw(Change(ref=watch.ref)))
    assert looked_at == [[watch.ref], [watch.ref, waiting.ref]]
    await store.close()
