"""Which archives a run may pin: those that its own package accepted, and no other one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from cloacina_operator.core.packages import ACCEPTED_KEPT, HISTORY_KEPT, remembered
from cloacina_operator.core.plan import StartRun
from cloacina_operator.core.runs import Execution, ObservedRun, plan

from cloaca.resources import CloacinaPackage, ObjectMeta, RunPhase, WorkflowRun
from cloaca.resources.conditions import RunCondition, RunReason, find
from cloaca.resources.package import ActivePackage, HistoryEntry, PackageSource, PackageSpec, PackageStatus
from cloaca.resources.run import RunSpec, RunStatus
from cloaca.resources.trigger import PackageReference

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
SAID = "package 'demo' has not accepted an archive with digest sha256:9…"


def run(**status: object) -> WorkflowRun:
    spec = RunSpec(workflow="demo", package_ref=PackageReference(name="demo"), digest=f"sha256:{'9' * 64}")
    return WorkflowRun(metadata=ObjectMeta(name="run", uid="u"), spec=spec, status=RunStatus(**status))


def entry(number: int, *, accepted: bool) -> HistoryEntry:
    return HistoryEntry(digest=f"sha256:{number:064d}", time=NOW - timedelta(hours=number), accepted=accepted)


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param(None, id="nothing was started"),
        pytest.param(Execution(attempt=1, ended_at=NOW, how="exit code 1"), id="its process has ended"),
    ],
)
def test_a_run_that_pins_an_archive_its_package_never_accepted_fails_at_once(execution: Execution | None) -> None:
    decided = plan(ObservedRun(run=run(), digest=None, unaccepted=SAID, execution=execution, now=NOW))
    ready = find(decided.status.conditions, RunCondition.READY)
    assert ready is not None
    assert (decided.status.phase, ready.reason, ready.message) == (RunPhase.FAILED, RunReason.DIGEST_UNKNOWN, SAID)
    assert (decided.actions, decided.requeue_after) == ((), None)


def test_a_run_whose_process_is_alive_goes_on_when_its_digest_leaves_the_history() -> None:
    running = run(phase=RunPhase.RUNNING, attempt=1)
    seen = ObservedRun(run=running, digest=None, unaccepted=SAID, execution=Execution(attempt=1), now=NOW)
    assert plan(seen).status == running.status


def test_a_run_whose_digest_was_accepted_starts() -> None:
    decided = plan(ObservedRun(run=run(), digest=f"sha256:{'9' * 64}", now=NOW))
    assert [type(action) for action in decided.actions] == [StartRun]


def test_a_package_vouches_for_what_it_accepted_and_not_for_what_it_refused_or_looks_at() -> None:
    status = PackageStatus(
        active=ActivePackage(digest=f"sha256:{'a' * 64}", version="2.0.0", since=NOW),
        history=(entry(1, accepted=False), entry(2, accepted=True), HistoryEntry(time=NOW, accepted=False)),
    )
    package = CloacinaPackage(spec=PackageSpec(source=PackageSource(url="https://h/p.cloacina")), status=status)
    assert package.accepted_digests == {f"sha256:{'a' * 64}", f"sha256:{2:064d}"}


def test_however_many_are_refused_the_last_accepted_archives_stay_in_the_history() -> None:
    refused = [entry(number, accepted=False) for number in range(40)]
    accepted = [entry(number, accepted=True) for number in range(40, 44)]
    kept = remembered((*refused, *accepted))
    assert len(kept) == HISTORY_KEPT
    assert kept == (*refused[: HISTORY_KEPT - ACCEPTED_KEPT], *accepted[:ACCEPTED_KEPT])
