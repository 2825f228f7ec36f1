"""What is decided about one run: tables of what is seen and what is done."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cloacina_operator.core.plan import StartRun
from cloacina_operator.core.runs import LONGEST_BACKOFF, Execution, ObservedRun, plan

from cloaca.resources import ConditionStatus, ObjectMeta, RunPhase, RunSpec, TaskPhase, WorkflowRun
from cloaca.resources.conditions import find
from cloaca.resources.meta import Condition
from cloaca.resources.run import RunStatus, TaskStatus
from cloaca.resources.trigger import PackageReference

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DIGEST = f"sha256:{'1' * 64}"


def look(*, status: dict[str, Any], **seen: Any) -> Any:
    spec = RunSpec(workflow="demo", package_ref=PackageReference(name="demo"), backoff_limit=100)
    run = WorkflowRun(metadata=ObjectMeta(name="run", uid="u"), spec=spec, status=RunStatus(**status))
    return plan(ObservedRun(run=run, **{"digest": DIGEST, "now": NOW, **seen}))


def died(ago: timedelta) -> Execution:
    return Execution(attempt=1, ended_at=NOW - ago, how="signal 9 (SIGKILL)")


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.mark.parametrize(
    ("failures", "ago", "again"),
    [
        pytest.param(1, seconds(0.25), seconds(0.75), id="a second after the first"),
        pytest.param(1, seconds(1), None, id="it is over"),
        pytest.param(4, seconds(1), seconds(7), id="it doubles"),
        pytest.param(90, seconds(1), LONGEST_BACKOFF - seconds(1), id="up to a limit"),
        pytest.param(1, HOUR, None, id="the clock was set forward"),
        pytest.param(4, -HOUR, None, id="the clock was set back: no wait of an hour"),
    ],
)
def test_a_run_whose_process_died_starts_again_after_a_pause(
    failures: int, ago: timedelta, again: timedelta | None
) -> None:
    decided = look(status={"attempt": 1, "failures": failures}, execution=died(ago))
    starts = [action for action in decided.actions if isinstance(action, StartRun)]
    assert (len(starts), decided.requeue_after) == (int(again is None), again)


@pytest.mark.parametrize("missing", [{"no_slot": "1 runs already"}, {"digest": None}], ids=["no slot", "no archive"])
def test_a_run_that_waits_without_a_process_is_pending_whatever_was_recorded_last(missing: dict[str, Any]) -> None:
    tasks = (TaskStatus(id="a", phase=TaskPhase.COMPLETED), TaskStatus(id="b", phase=TaskPhase.RUNNING))
    decided = look(status={"phase": RunPhase.RUNNING, "attempt": 1, "tasks": tasks}, **missing)
    assert decided.status.phase is RunPhase.PENDING
    assert [task.phase for task in decided.status.tasks] == [TaskPhase.COMPLETED, TaskPhase.PENDING]
    assert decided.actions == ()


EVICTED = Execution(
    attempt=1, ended_at=NOW, how="pod 'run-x7k2p' was evicted: drained", reason="Evicted", interrupted=True
)
WHY = "attempt 1 was stopped: pod 'run-x7k2p' was evicted: drained; that is no failure, the next one resumes"


def started(reason: str) -> dict[str, Any]:
    said = Condition(
        type="Started", status=ConditionStatus.FALSE, reason=reason, message="…", last_transition_time=NOW - HOUR
    )
    return {"conditions": (said,)}


@pytest.mark.parametrize(
    "phase",
    [
        pytest.param({"phase": RunPhase.RUNNING}, id="it was killed"),
        pytest.param({"phase": RunPhase.PENDING, **started("Retrying")}, id="it stopped in time, and did not know why"),
    ],
)
def test_a_run_whose_pod_is_taken_away_says_so_and_has_not_failed(phase: dict[str, Any]) -> None:
    decided = look(status={"attempt": 1, **phase}, execution=EVICTED)
    condition = find(decided.status.conditions, "Started")
    assert condition is not None
    assert (condition.reason, condition.message, decided.status.message) == ("Evicted", WHY, WHY)
    assert (decided.status.phase, decided.status.failures, decided.actions) == (RunPhase.PENDING, 0, ())


@pytest.mark.parametrize("reason", ["Evicted", "WaitingForSlot"])
def test_why_a_run_was_stopped_is_said_once(reason: str) -> None:
    decided = look(status={"attempt": 1, "phase": RunPhase.PENDING, **started(reason)}, execution=EVICTED)
    assert [type(action) for action in decided.actions] == [StartRun]


@pytest.mark.parametrize(("size", "starts"), [(256 * 1024, True), (256 * 1024 + 1, False)])
def test_a_run_whose_context_is_over_the_limit_fails_and_says_what_to_do(size: int, starts: bool) -> None:
    decided = look(status={}, context_bytes=size)
    assert any(isinstance(action, StartRun) for action in decided.actions) is starts
    if not starts:
        condition = find(decided.status.conditions, "Ready")
        assert condition is not None
        assert (decided.status.phase, condition.reason) == (RunPhase.FAILED, "ContextTooLarge")
        assert condition.message == (
            "spec.context is 262,145 bytes as JSON, over the limit of 262,144: "
            "submit a run whose context has a reference to the data instead"
        )
