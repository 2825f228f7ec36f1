"""What GitOps tools read: kstatus itself, from its Go module, judges every kind in every state that it can be in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cloacina_operator.core import packages, runs, triggers
from cloacina_operator.core.packages import Accepted, Fetched, FetchFailed, ObservedPackage, PollerState, Refused
from cloacina_operator.core.runs import Execution, ObservedRun
from cloacina_operator.core.triggers import ObservedTrigger
from cluster.binaries import Unavailable
from cluster.control_plane import ControlPlane
from cluster.go_programs import built
from groups import OPERATORS

from cloaca.engine.record import Record, TaskRecord
from cloaca.processes.run import with_conditions
from cloaca.resources import CloacinaPackage, ObjectMeta, Resource, RunPhase, TaskPhase, Trigger, WorkflowRun
from cloaca.resources.conditions import PackageReason
from cloaca.resources.package import PackageSource, PackageSpec, TriggerEntry, WorkflowEntry
from cloaca.resources.recorded import RecordedStatus, RecordedTask, read_status
from cloaca.resources.run import RunSpec, RunStatus
from cloaca.resources.trigger import PackageReference, TriggerSpec

pytestmark = OPERATORS

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
GENERATION = 3
OLD, NEW = (f"sha256:{mark * 64}" for mark in "ab")
META = ObjectMeta(name="demo", uid="u", generation=GENERATION)
CURRENT, IN_PROGRESS, FAILED = "Current", "InProgress", "Failed"


@pytest.fixture(scope="session")
def kstatus() -> Path:
    try:
        return built(Path(__file__).parent / "kstatus", ".")
    except Unavailable as error:
        pytest.skip(str(error))


def verdicts(kstatus: Path, objects: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = "".join(f"{json.dumps(obj)}\n" for obj in objects)
    done = subprocess.run([str(kstatus)], input=lines, capture_output=True, text=True, check=True)
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


# --- packages

ACCEPTED = Accepted(
    version="1.0.0",
    workflows=(WorkflowEntry(name="demo", tasks=("only",)),),
    tasks=(),
    triggers=(TriggerEntry(name="watch", workflow="demo", poll_interval="5s"),),
)
POLLS = PollerState(digest=OLD)
BAD = Refused(reason=PackageReason.NAMES_DISAGREE, message="the code has no trigger 'watch'", version="2.0.0")
AWAY = FetchFailed(reason=PackageReason.FETCH_FAILED, message="404", retry_at=NOW + timedelta(seconds=30))


def package(*looks: Mapping[str, Any], suspend: bool = False) -> CloacinaPackage:
    """A package after some looks of the operator, the last of them with ``suspend`` in its spec."""
    spec = PackageSpec(source=PackageSource(url="https://example.com/demo.cloacina"))
    seen = CloacinaPackage(metadata=META, spec=spec)
    for number, look in enumerate(looks):
        if number == len(looks) - 1:
            seen = seen.with_spec(suspend=suspend)
        observed = {"fetch": None, "verdict": None, "polled": frozenset({"watch"}), "poller": None, "now": NOW}
        seen = seen.model_copy(
            update={"status": packages.plan(ObservedPackage(package=seen, **{**observed, **look})).status}
        )
    return seen


FINE = {"fetch": Fetched(digest=OLD), "verdict": ACCEPTED, "poller": POLLS}
NOT_SEEN = CloacinaPackage(metadata=META, spec=PackageSpec(source=PackageSource(url="https://example.com/a")))
PACKAGES: dict[str, tuple[CloacinaPackage, str]] = {
    "not yet seen": (NOT_SEEN, IN_PROGRESS),
    "being fetched": (package({}), IN_PROGRESS),
    "being inspected": (package({"fetch": Fetched(digest=OLD)}), IN_PROGRESS),
    "its source is away": (package({"fetch": AWAY}), IN_PROGRESS),
    "refused": (package({"fetch": Fetched(digest=NEW), "verdict": BAD}), FAILED),
    "its poller starts": (package({**FINE, "poller": PollerState(digest=OLD, starting=True)}), IN_PROGRESS),
    "active": (package(FINE, FINE), CURRENT),
    "active, and its spec changed": (
        package(FINE, FINE).with_metadata(generation=GENERATION + 1),
        IN_PROGRESS,
    ),
    "active, a newer archive is refused": (
        package(FINE, FINE, {"fetch": Fetched(digest=NEW), "verdict": BAD, "poller": POLLS}),
        FAILED,
    ),
    "its poller fails": (
        package(FINE, FINE, {**FINE, "poller": PollerState(digest=OLD, failure="exit code 1")}),
        IN_PROGRESS,
    ),
    "suspended": (package(FINE, FINE, FINE, suspend=True), CURRENT),
    "suspended before an archive was accepted": (package({"fetch": AWAY}, {"fetch": AWAY}, suspend=True), CURRENT),
}

# --- triggers


def trigger(of: CloacinaPackage | None, **spec: Any) -> Trigger:
    """A trigger after one look of the operator."""
    wanted = {"package_ref": PackageReference(name="demo"), "name": "watch", **spec}
    seen = Trigger(metadata=META, spec=TriggerSpec(**wanted))
    decided = triggers.plan(ObservedTrigger(trigger=seen, package=of, poller_alive=True, now=NOW))
    return seen.model_copy(update={"status": decided.status})


READY = package(FINE, FINE)
TRIGGERS: dict[str, tuple[Trigger, str]] = {
    "not yet seen": (
        Trigger(metadata=META, spec=TriggerSpec(package_ref=PackageReference(name="demo"), name="watch")),
        IN_PROGRESS,
    ),
    "polled": (trigger(READY), CURRENT),
    "suspended": (trigger(READY, suspend=True), CURRENT),
    "its package is suspended": (trigger(package(FINE, FINE, FINE, suspend=True)), CURRENT),
    "its package is not there": (trigger(None), IN_PROGRESS),
    "its package is being fetched": (trigger(package({})), IN_PROGRESS),
    "not declared": (trigger(READY, name="wacth"), FAILED),
    "its workflow is not known": (trigger(READY, workflow="other"), FAILED),
}

# --- runs


def run(*, status: RunStatus | None = None, **spec: Any) -> WorkflowRun:
    wanted = {"workflow": "demo", "package_ref": PackageReference(name="demo"), "backoff_limit": 0, **spec}
    return WorkflowRun(metadata=META, spec=RunSpec(**wanted), status=status or RunStatus())


def decided(seen: WorkflowRun, **observed: Any) -> WorkflowRun:
    """``seen`` after one look of the operator."""
    plan = runs.plan(ObservedRun(run=seen, **{"digest": OLD, "now": NOW, **observed}))
    return seen.model_copy(update={"status": plan.status})


def recorded(phase: RunPhase, *tasks: TaskPhase) -> WorkflowRun:
    """A run as its own process records it."""
    record = Record(
        recorded=RecordedStatus(attempt=1, observed_generation=GENERATION),
        phase=phase,
        tasks=tuple(TaskRecord(f"task-{n}", RecordedTask(f"task-{n}", it)) for n, it in enumerate(tasks)),
        checkpoint={},
        context=None,
        started_at=NOW,
        finished_at=NOW if phase.finished else None,
        message="what happened",
        traceback=None,
    )
    status = json.loads(record.text(with_conditions(record, (), GENERATION, NOW)))
    assert read_status(status).phase is phase
    return run(status=RunStatus.model_validate(status))


DIED = Execution(attempt=1, ended_at=NOW, how="signal 9 (SIGKILL)")
UNSCHEDULABLE = Execution(attempt=1, how="no node takes it", reason="Unschedulable")
COMPLETED = recorded(RunPhase.COMPLETED, TaskPhase.COMPLETED)
RUNS: dict[str, tuple[WorkflowRun, str]] = {
    "not yet seen": (run(), IN_PROGRESS),
    "waits for its package": (decided(run(), digest=None, missing="no package"), IN_PROGRESS),
    "waits for a slot": (decided(run(), no_slot="as many as may run at once are running (1)"), IN_PROGRESS),
    "no node takes its pod": (decided(run(), execution=UNSCHEDULABLE), IN_PROGRESS),
    "running": (recorded(RunPhase.RUNNING, TaskPhase.RUNNING), IN_PROGRESS),
    "stopped, and resumed later": (recorded(RunPhase.PENDING, TaskPhase.PENDING), IN_PROGRESS),
    "tried again": (decided(run(status=RunStatus(attempt=0), backoff_limit=3), execution=DIED), IN_PROGRESS),
    "completed": (COMPLETED, CURRENT),
    "completed, and cancelled after that": (
        decided(COMPLETED.with_metadata(generation=GENERATION + 1).with_spec(cancel=True)),
        CURRENT,
    ),
    "failed": (recorded(RunPhase.FAILED, TaskPhase.FAILED), FAILED),
    "over its deadline, as its process says": (recorded(RunPhase.FAILED, TaskPhase.CANCELLED), FAILED),
    "cancelled, as its process says": (recorded(RunPhase.CANCELLED, TaskPhase.CANCELLED), FAILED),
    "cancelled before it began": (decided(run(cancel=True)), FAILED),
    "its process died for the last time": (decided(run(), execution=DIED), FAILED),
    "deduplicated": (decided(run(key="k"), fired_before=True), FAILED),
    "it names another package's trigger": (
        decided(run(trigger_ref={"name": "other", "uid": "o"}), owner="other"),
        FAILED,
    ),
    "its digest is unknown": (decided(run(digest=NEW), unaccepted="not accepted"), FAILED),
}

TABLE: list[tuple[str, Resource[Any, Any], str]] = [
    (f"{kind}: {state}", obj, verdict)
    for kind, states in (("package", PACKAGES), ("trigger", TRIGGERS), ("run", RUNS))
    for state, (obj, verdict) in states.items()
]


def test_kstatus_reads_every_state_as_a_person_would(kstatus: Path) -> None:
    found = verdicts(kstatus, [obj.to_json_dict() for _, obj, _ in TABLE])
    assert {state: verdict for (state, _, _), verdict in zip(TABLE, found, strict=True)} == {
        state: verdict for state, _, verdict in TABLE
    }


def test_an_object_that_nobody_has_looked_at_is_in_progress_as_the_server_gives_it(
    kstatus: Path, control_plane: ControlPlane
) -> None:
    namespace = "kstatus"
    control_plane.namespace(namespace)
    for obj in (NOT_SEEN, TRIGGERS["not yet seen"][0], run()):
        document = obj.to_json_dict()
        document["metadata"] = {"name": "demo", "namespace": namespace}
        del document["status"]
        control_plane.kubectl("create", "-f", "-", document=document)
    listed = json.loads(control_plane.kubectl("get", "cpkg,ctrig,crun", "-n", namespace, "-o", "json"))["items"]
    assert verdicts(kstatus, listed) == [IN_PROGRESS] * 3
