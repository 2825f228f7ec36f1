"""A run executes an archive of its own package only, whoever put other archives into the same store."""

from __future__ import annotations

from builders import WORKFLOW, archive
from daemon_process import Daemon

from cloaca.resources import ObjectMeta, RunPhase, WorkflowRun
from cloaca.resources.conditions import RunCondition, RunReason, find
from cloaca.resources.run import RunSpec
from cloaca.resources.trigger import PackageReference


async def test_the_archive_of_another_package_does_not_run_in_the_name_of_this_one(daemon: Daemon) -> None:
    daemon.deploy(archive(WORKFLOW), "demo-1.0.0.cloacina")
    daemon.deploy(archive(WORKFLOW, name="other"), "other-1.0.0.cloacina")
    daemon.start()
    own = (await daemon.package("demo", Ready=("True", "Ready"))).status.active
    foreign = (await daemon.package("other", Ready=("True", "Ready"))).status.active
    assert own is not None
    assert foreign is not None
    for name, digest in (("stolen", foreign.digest), ("honest", own.digest)):
        spec = RunSpec(package_ref=PackageReference(name="demo"), workflow="demo", digest=digest)
        await daemon.submit(WorkflowRun(metadata=ObjectMeta(name=name), spec=spec))

    runs = await daemon.runs(lambda runs: len(runs) == 2 and all(run.status.phase.finished for run in runs))
    stolen, honest = sorted(runs, key=lambda run: run.name, reverse=True)
    ready = find(stolen.status.conditions, RunCondition.READY)
    assert ready is not None
    assert (stolen.status.phase, ready.reason, stolen.status.attempt) == (RunPhase.FAILED, RunReason.DIGEST_UNKNOWN, 0)
    assert (stolen.status.message or "").startswith(
        f"package 'demo' has not accepted an archive with digest {foreign.digest}: submit a run without spec.digest"
    )
    assert honest.status.phase is RunPhase.COMPLETED
