"""A poll that finds more than one object can hold: with keys all of it runs, without them the poll says what to do."""

from __future__ import annotations

from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import ObjectMeta, RunPhase, RunSpec, WorkflowRun
from cloaca.resources.trigger import PackageReference, TickOutcome

CODE = (
    WORKFLOW
    + """
@cloaca.trigger(name="watch", poll_interval="200ms", allow_concurrent=True)
def watch(state):
    state.set("calls", state.get("calls", 0) + 1)
    return [cloaca.TriggerResult.fire({"x": "y" * 200_000}, key=KEY) for number in range(5)]
"""
)


async def test_fires_with_keys_are_recorded_in_parts(daemon: Daemon) -> None:
    daemon.deploy(archive(CODE.replace("KEY", "str(number)"), triggers=[declared("watch", allow_concurrent=True)]))
    daemon.start()
    runs = await daemon.runs(lambda runs: len(runs) == 5 and all(run.status.phase.finished for run in runs))
    assert {(run.spec.key, run.status.phase) for run in runs} == {(str(it), RunPhase.COMPLETED) for it in range(5)}
    trigger = await daemon.trigger("demo-watch", lambda it: "calls" in it.status.state)
    assert (trigger.status.pending, trigger.status.sequence) == (None, 3)


async def test_fires_without_keys_are_refused_with_what_to_do(daemon: Daemon) -> None:
    daemon.deploy(archive(CODE.replace("KEY", "None"), triggers=[declared("watch", allow_concurrent=True)]))
    daemon.start()
    trigger = await daemon.trigger("demo-watch", lambda it: it.status.consecutive_errors >= 2)
    assert trigger.status.ticks[0].outcome is TickOutcome.ERROR
    assert "give each of them a key, or yield them one by one" in (trigger.status.last_error or "")
    assert trigger.status.sequence == 0


async def test_a_run_whose_context_is_too_large_fails_and_is_never_started(daemon: Daemon) -> None:
    daemon.deploy(archive(WORKFLOW))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    spec = RunSpec(package_ref=PackageReference(name="demo"), workflow="demo", context={"x": "y" * 300_000})
    await daemon.submit(WorkflowRun(metadata=ObjectMeta(name="large"), spec=spec))
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert (run.status.phase, run.status.attempt) == (RunPhase.FAILED, 0)
    assert (run.status.message or "").startswith("spec.context is 300,008 bytes as JSON, over the limit of 262,144")


FAN = """
import cloaca

with cloaca.WorkflowBuilder("demo"):
    for number in range(5):
        cloaca.task(id=f"part-{number}", retry_attempts=3)(
            lambda context, number=number: context.set(f"x{number}", "y" * 250_000)
        )

    @cloaca.task(dependencies=[f"part-{number}" for number in range(5)])
    def join(context):
        pass
"""


async def test_a_run_that_would_keep_too_much_at_once_fails_with_what_to_do(daemon: Daemon) -> None:
    parts = [{"id": f"part-{number}", "function": f"demo:part_{number}", "dependencies": []} for number in range(5)]
    join = {"id": "join", "function": "demo:join", "dependencies": [part["id"] for part in parts]}
    daemon.deploy(archive(FAN, tasks=[*parts, join]))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    spec = RunSpec(package_ref=PackageReference(name="demo"), workflow="demo")
    await daemon.submit(WorkflowRun(metadata=ObjectMeta(name="wide"), spec=spec))
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert run.status.phase is RunPhase.FAILED
    assert "over the limit of 1,000,000: store the data elsewhere" in (run.status.message or "")
    phases = sorted((task.phase.value, task.attempts) for task in run.status.tasks)
    assert phases == [("Completed", 1)] * 4 + [("Failed", 1), ("Skipped", 0)]  # the fifth: nothing needs the others now
    assert run.status.attempt == 1
