"""The three kinds: what may change, what times are, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from cloaca.resources import ObjectMeta, RunPhase, RunSpec, RunStatus, WorkflowRun, immutable_faults
from cloaca.resources.fielddocs import field_docs
from cloaca.resources.run import TriggerReference
from cloaca.resources.trigger import PackageReference

RUN = WorkflowRun(
    metadata=ObjectMeta(name="once"),
    spec=RunSpec(
        workflow="load", package_ref=PackageReference(name="p"), context={"a": [1]}, backoff_limit=3, key="orders"
    ),
)


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param({"cancel": True}, [], id="cancel"),
        pytest.param({"workflow": "other"}, ["spec.workflow"], id="workflow"),
        pytest.param({"context": {"a": [2]}}, ["spec.context"], id="deep in the context"),
        pytest.param({"package_ref": None, "key": None}, ["spec.packageRef", "spec.key"], id="taken out"),
        pytest.param({"trigger_ref": TriggerReference(name="t", uid="u")}, ["spec.triggerRef"], id="added"),
        pytest.param({"backoff_limit": 9}, ["spec.backoffLimit"], id="limit"),
    ],
)
def test_the_spec_of_a_run_is_immutable_but_for_cancel(changes: dict[str, Any], faults: list[str]) -> None:
    assert immutable_faults(RUN, RUN.with_spec(**changes)) == [
        f"WorkflowRun default/once: {path}: cannot be changed: submit a new run instead" for path in faults
    ]


def test_a_cancel_cannot_be_taken_back() -> None:
    assert immutable_faults(RUN.with_spec(cancel=True), RUN) == [
        "WorkflowRun default/once: spec.cancel: cancel cannot be taken back: submit a new run, as a replay"
    ]


@pytest.mark.parametrize("before", RunPhase)
@pytest.mark.parametrize("after", RunPhase)
def test_a_phase_that_is_terminal_never_changes(before: RunPhase, after: RunPhase) -> None:
    old, new = RUN.with_status(phase=before), RUN.with_status(phase=after)
    told = f"status.phase: a run that has ended keeps its phase: {before.value} cannot become {after.value}"
    refused = before.finished and before is not after
    assert immutable_faults(old, new) == ([f"WorkflowRun default/once: {told}"] if refused else [])


def test_a_time_is_written_in_utc_and_read_back() -> None:
    zurich = datetime(2026, 3, 28, 10, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    status = RunStatus(started_at=zurich)
    assert status.to_json_dict()["startedAt"] == "2026-03-28T09:00:00.123456Z"
    assert RunStatus.model_validate(status.to_json_dict()) == status


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        RunStatus(started_at=datetime(2026, 3, 28, 10, 0))


def test_the_docs_of_fields_are_read_from_the_source() -> None:
    docs = field_docs(RunSpec)
    assert set(docs) == {*RunSpec.model_fields, "MUTABLE"}
    assert docs["key"] == "One run per trigger and key, ever; unset: nothing else is the same fire."
    assert field_docs(RunPhase)["DEDUPLICATED"] == "Its key had fired already; it was never started."


def test_importing_the_types_brings_in_no_yaml_and_no_generator() -> None:
    """Every process imports them; what only people's files and `make crds` need stays out."""
    code = "import sys, cloaca.resources, cloaca.resources.names, cloaca.resources.conditions; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    unwanted = {"yaml", "argparse", "difflib", "sqlite3", "asyncio", "http"}
    ours = {f"cloaca.resources.{name}" for name in ("documents", "plain", "crds", "openapi", "reference", "fielddocs")}
    assert loaded & (unwanted | ours) == set()
