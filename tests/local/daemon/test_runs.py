"""From a fire to the end of its run, in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import CloacinaPackage, ObjectMeta, RunPhase, RunSpec, WorkflowRun
from cloaca.resources.trigger import PackageReference, TickOutcome

ONCE = (
    WORKFLOW
    + """
@cloaca.trigger(name="once", poll_interval="200ms")
def once():
    return cloaca.TriggerResult.fire({"from": "once"}, key="the only one")
"""
)


async def test_a_package_that_is_copied_into_the_folder_is_polled_and_its_fire_runs(daemon: Daemon) -> None:
    daemon.deploy(archive(ONCE, triggers=[declared("once")]))
    daemon.start()
    package = await daemon.package(Ready=("True", "Ready"), Polling=("True", "Polling"))
    assert package.status.active is not None
    assert package.status.active.version == "1.0.0"
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert run.status.phase is RunPhase.COMPLETED
    assert run.status.context == {"from": "once", "done": True}
    assert run.spec.digest == package.status.active.digest
    trigger = await daemon.trigger("demo-once", lambda it: bool(it.status.ticks))
    assert (trigger.status.ticks[-1].outcome, trigger.status.ticks[-1].runs) == (TickOutcome.FIRED, (run.name,))
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param("raise ValueError('boom')", "task 'only' failed: ValueError: boom", id="raises"),
        pytest.param("context.set('x', object())", "context value 'x' is of type builtins.object", id="unserialisable"),
        pytest.param("return 'text'", "the task returned str", id="returns text"),
        pytest.param("context.set('x', 'x' * 300_000)", "largest key: 'x'", id="context over the limit"),
        pytest.param("raise SystemExit(3)", "SystemExit: 3", id="exits"),
    ],
)
async def test_a_task_that_fails_fails_its_run_and_says_why(daemon: Daemon, body: str, message: str) -> None:
    code = WORKFLOW.replace('context.set("done", True)', body)
    daemon.deploy(archive(code))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    await daemon.submit(by_hand())
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert run.status.phase is RunPhase.FAILED
    assert message in (run.status.message or "")


async def test_a_run_whose_process_dies_is_tried_again_and_given_up_after_its_backoff_limit(daemon: Daemon) -> None:
    daemon.deploy(archive(WORKFLOW.replace('context.set("done", True)', "os._exit(9)")))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    await daemon.submit(by_hand(backoff_limit=1))
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert run.status.phase is RunPhase.FAILED
    assert (run.status.attempt, run.status.failures) == (2, 2)
    assert "exit code 9" in (run.status.message or "")


async def test_a_cancelled_run_is_stopped_while_it_works(daemon: Daemon, tmp_path: Path) -> None:
    daemon.deploy(archive(WORKFLOW.replace('context.set("done", True)', "time.sleep(600)")))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    await daemon.submit(by_hand())
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase is RunPhase.RUNNING)
    await daemon.update(run.with_spec(cancel=True))
    (run,) = await daemon.runs(lambda runs: runs[0].status.phase.finished)
    assert run.status.phase is RunPhase.CANCELLED
    assert run.status.tasks[0].phase.value == "Cancelled"


async def test_a_run_over_its_deadline_fails(daemon: Daemon) -> None:
    daemon.deploy(archive(WORKFLOW.replace('context.set("done", True)', "time.sleep(600)")))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    await daemon.submit(by_hand(active_deadline_seconds=1))
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert run.status.phase is RunPhase.FAILED
    assert "activeDeadlineSeconds" in (run.status.message or "")


async def test_a_run_of_an_unknown_workflow_fails_and_names_the_known_ones(daemon: Daemon) -> None:
    daemon.deploy(archive(WORKFLOW))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    await daemon.submit(by_hand(workflow="other"))
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert run.status.message == "the package has no workflow 'other'; it has: demo"


async def test_under_forbid_no_two_runs_overlap_while_the_trigger_goes_on_firing(
    daemon: Daemon, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    work = f"""
        name = f"{{time.time_ns()}}"
        open(r"{marks}/" + name + ".start", "w").close()
        time.sleep(0.3)
        open(r"{marks}/" + f"{{time.time_ns()}}.end", "w").close()
"""
    code = (
        WORKFLOW.replace('        context.set("done", True)', work)
        + """
@cloaca.trigger(name="always", poll_interval="100ms", allow_concurrent=False)
def always():
    return [cloaca.TriggerResult.fire({"n": n}) for n in range(2)]
"""
    )
    daemon.deploy(archive(code, triggers=[declared("always", poll_interval="100ms")]))
    daemon.start()

    async def enough(store: object) -> bool:
        return sum(path.suffix == ".end" for path in marks.iterdir()) >= 5

    await daemon.eventually("five runs to end", enough)
    daemon.stop()
    kinds = [path.suffix for path in sorted(marks.iterdir())]
    assert len(kinds) >= 10
    assert kinds == [".start", ".end"] * (len(kinds) // 2) + [".start"] * (len(kinds) % 2)


async def test_deleting_the_package_ends_and_removes_everything_of_it(daemon: Daemon) -> None:
    code = ONCE.replace('context.set("done", True)', "time.sleep(600)")
    daemon.deploy(archive(code, triggers=[declared("once")]))
    daemon.start()
    await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase is RunPhase.RUNNING)
    (daemon.home.packages / "demo-1.0.0.cloacina").unlink()

    async def gone(store: object) -> bool:
        return not [*await store.list(CloacinaPackage), *await store.list(WorkflowRun)]  # type: ignore[attr-defined]

    await daemon.eventually("everything to be gone", gone)


def by_hand(workflow: str = "demo", **spec: object) -> WorkflowRun:
    return WorkflowRun(
        metadata=ObjectMeta(name="by-hand"),
        spec=RunSpec(workflow=workflow, package_ref=PackageReference(name="demo"), **spec),  # type: ignore[arg-type]
    )
