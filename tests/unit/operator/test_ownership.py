"""What is ours is known by its controller, never by labels or annotations, which everybody may set."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from cloacina_operator.core.trouble import attempt_of
from cloacina_operator.executors.sightings import Sightings

from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.resources.names import ATTEMPT_ANNOTATION, COMPONENT_LABEL, MANAGED_BY, MANAGED_BY_LABEL

UIDS = {Ref(WorkflowRun.KIND, "team", "run-1"): "uid-1", Ref(CloacinaPackage.KIND, "team", "demo"): "uid-p"}
OWNER = {
    "apiVersion": "cloacina.io/v1alpha1",
    "kind": "WorkflowRun",
    "name": "run-1",
    "uid": "uid-1",
    "controller": True,
}


def job(owner: dict[str, Any] | None, uid: str = "j", version: str = "1", attempt: str = "x") -> dict[str, Any]:
    return {
        "metadata": {
            "name": "run-1", "namespace": "team", "uid": uid, "resourceVersion": version,
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, COMPONENT_LABEL: "run"},
            "annotations": {ATTEMPT_ANNOTATION: attempt},
            "ownerReferences": [] if owner is None else [owner],
        },
        "spec": {"template": {}},
    }  # fmt: skip


def sightings(uids: dict[Ref, str]) -> Sightings:
    now = datetime(2026, 12, 1, tzinfo=timezone.utc)
    return Sightings(None, ["team"], lambda ref: None, lambda: now, uids.get)  # type: ignore[arg-type]  # asks nothing


@pytest.mark.parametrize(
    "owner",
    [
        None,
        {**OWNER, "uid": "another"},
        {**OWNER, "controller": False},
        {**OWNER, "kind": "Job", "apiVersion": "batch/v1"},
        {**OWNER, "apiVersion": "example.org/v1"},
        {**OWNER, "name": "run-2"},
        {**OWNER, "kind": "CloacinaPackage", "name": "demo", "uid": "uid-p"},  # which owns no Job of a run
    ],
)
def test_a_strangers_job_takes_no_slot(owner: dict[str, Any] | None) -> None:
    seen = sightings(UIDS)
    seen.jobs.saw(job(owner))
    assert not seen.active
    assert seen.job("team", "run-1") is None


def test_a_job_of_a_run_that_exists_takes_one_until_it_is_gone() -> None:
    uids = dict(UIDS)
    seen = sightings(uids)
    seen.jobs.saw(job(OWNER))
    uids.clear()  # the run goes first, and its Job is alive
    seen.jobs.saw(job(OWNER, version="2"))
    assert set(seen.active) == {"j"}
    seen.jobs._told(("team", "run-1"), job(OWNER, version="3"), True)
    assert not seen.active


def test_a_job_that_was_seen_before_its_run_is_found() -> None:
    uids: dict[Ref, str] = {}
    seen = sightings(uids)
    seen.jobs.saw(job(OWNER))
    assert seen.job("team", "run-1") is None
    uids.update(UIDS)
    assert seen.job("team", "run-1") is not None
    assert set(seen.active) == {"j"}


@pytest.mark.parametrize(("said", "attempt"), [("x", 0), ("", 0), ("-1", 0), ("9" * 400, 0), ("١", 0), ("2", 2)])
def test_an_attempt_is_a_number_or_none(said: str, attempt: int) -> None:
    assert attempt_of(job(OWNER, attempt=said)) == attempt
