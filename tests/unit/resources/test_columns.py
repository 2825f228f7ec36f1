"""Columns: what a table shows of an object, found in its JSON as kubectl finds it."""

from datetime import datetime, timezone
from typing import Any

import pytest

from cloaca.resources import (
    CloacinaPackage,
    Column,
    Condition,
    ConditionStatus,
    ObjectMeta,
    PackageSpec,
    PackageStatus,
    RunPhase,
    RunSpec,
    RunStatus,
    WorkflowRun,
)
from cloaca.resources.meta import Resource
from cloaca.resources.package import ActivePackage, PackageSource

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
WRITTEN = "2026-03-28T09:00:00.000000Z"
DOCUMENT: dict[str, Any] = {
    "spec": {"suspend": False, "packageRef": {"name": "data-ingest"}},
    "status": {"conditions": [{"type": "Polling", "status": "False"}, {"type": "Ready", "status": "True"}]},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(".spec.packageRef.name", "data-ingest", id="nested"),
        pytest.param(".spec.suspend", False, id="false is not nothing"),
        pytest.param('.status.conditions[?(@.type=="Ready")].status', "True", id="condition"),
        pytest.param('.status.conditions[?(@.type=="Agreed")].status', None, id="no such condition"),
        pytest.param(".status.active.version", None, id="nothing there"),
        pytest.param(".spec.packageRef.name.more", None, id="below text"),
        pytest.param('.spec.packageRef[?(@.type=="Ready")].status', None, id="no list"),
    ],
)
def test_a_value_is_found_by_its_path(path: str, value: object) -> None:
    assert Column(header="X", path=path, description="X.").value(DOCUMENT) == value


def test_a_path_that_we_cannot_read_is_an_error_that_shows_it() -> None:
    with pytest.raises(ValueError, match=r"^column X: cannot read '\.spec\[\*\]' from '\[\*\]' on$"):
        Column(header="X", path=".spec[*]", description="X.").value(DOCUMENT)


def row(resource: Resource[Any, Any]) -> dict[str, Any]:
    document = resource.to_json_dict()
    return {column.header: column.value(document) for column in resource.COLUMNS}


def test_a_package_at_a_glance() -> None:
    ready = Condition(type="Ready", status=ConditionStatus.TRUE, reason="Ready", last_transition_time=NOW)
    package = CloacinaPackage(
        metadata=ObjectMeta(name="p", creation_timestamp=NOW),
        spec=PackageSpec(source=PackageSource(url="https://a/b")),
        status=PackageStatus(
            conditions=(ready,), active=ActivePackage(digest="sha256:0", version="1.0.0", since=NOW), trigger_count=2
        ),
    )
    assert row(package) == {
        "Version": "1.0.0",
        "Ready": "True",
        "Reason": "Ready",
        "Triggers": 2,
        "Age": WRITTEN,
        "Digest": "sha256:0",
        "Suspended": False,
        "Message": "",
    }


def test_a_run_at_a_glance() -> None:
    run = WorkflowRun(
        metadata=ObjectMeta(name="r"),
        spec=RunSpec(workflow="load", key="orders.parquet"),
        status=RunStatus(phase=RunPhase.RUNNING, started_at=NOW, attempt=1),
    )
    assert row(run) == {
        "Workflow": "load",
        "Phase": "Running",
        "Trigger": None,
        "Started": WRITTEN,
        "Finished": None,
        "Age": None,
        "Package": None,
        "Key": "orders.parquet",
        "Attempt": 1,
        "Message": None,
    }
