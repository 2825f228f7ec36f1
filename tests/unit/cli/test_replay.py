"""``history`` and ``replay``: what they say and make, on a real store."""

from __future__ import annotations

from typing import Any

import pytest

from cloaca.resources import RunPhase, Trigger, WorkflowRun


@pytest.fixture
def deployed(cloaca: Any, world: list[Any]) -> Any:
    """Everything in the golden world, and a run with a key that failed."""
    cloaca.put(*world)
    trigger = cloaca.look(Trigger, "data-ingest-inbox-watcher")
    cloaca.put(
        WorkflowRun.model_validate(
            {
                "metadata": {
                    "name": "old",
                    "labels": {"cloacina.io/trigger": trigger.name},
                    "ownerReferences": [{"kind": "Trigger", "name": trigger.name, "uid": trigger.metadata.uid}],
                },
                "spec": {
                    "workflow": "data_ingest",
                    "packageRef": {"name": "data-ingest"},
                    "digest": f"sha256:{'7' * 64}",
                    "context": {"filename": "a.parquet"},
                    "triggerRef": {"name": trigger.name, "uid": trigger.metadata.uid},
                    "key": "a.parquet",
                    "fireId": "f",
                    "cancel": True,
                },
                "status": {"phase": "Cancelled"},
            }
        )
    )
    return cloaca


def test_a_replay_has_the_context_and_archive_of_the_old_run_and_names_it(deployed: Any) -> None:
    said = deployed("replay", "crun/old")
    name = said.out.removeprefix("workflowrun.cloacina.io/").removesuffix(" created\n")
    assert (said.code, name.startswith("data-ingest-inbox-watcher-replay-")) == (0, True), said
    old, new = deployed.look(WorkflowRun, "old"), deployed.look(WorkflowRun, name)
    assert new.status.phase is RunPhase.PENDING
    assert new.spec.replay_of == "old"
    for same in ("context", "digest", "workflow", "package_ref", "trigger_ref"):
        assert getattr(new.spec, same) == getattr(old.spec, same)
    assert (new.spec.key, new.spec.cancel) == (None, False), "it is no repetition of the key, and not cancelled"
    assert (new.metadata.labels, new.metadata.owner_references) == (old.metadata.labels, old.metadata.owner_references)
    again = deployed("replay", "old").out
    assert again != said.out, "each replay is a run of its own"


def test_a_run_that_is_not_there_cannot_be_replayed(deployed: Any) -> None:
    said = deployed("replay", "odl")
    assert (said.code, "there is no WorkflowRun 'odl'" in said.err) == (1, True)


def test_history_shows_each_tick_with_outcome_and_reason(deployed: Any) -> None:
    said = deployed("history", "data-ingest-inbox-watcher")
    head, *rows = said.out.splitlines()
    ticks = deployed.look(Trigger, "data-ingest-inbox-watcher").status.ticks
    assert (said.code, head.split()) == (0, ["AGE", "OUTCOME", "TOOK", "RUNS", "REASON"])
    assert [row.split()[1] for row in rows] == [tick.outcome.value for tick in ticks]
    assert all(run in row for row, tick in zip(rows, ticks, strict=True) for run in tick.runs)


def test_a_trigger_without_polls_says_so(deployed: Any) -> None:
    said = deployed("history", "data-ingest-nightly")
    assert (said.code, said.out.startswith("trigger 'data-ingest-nightly' has no poll on record yet")) == (0, True)
