"""Somebody sets the machine's clock, an hour forward or back: polls and schedules go on, without a burst or a stall."""

from __future__ import annotations

from pathlib import Path

from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import RunPhase, WorkflowRun
from cloaca.store import Store

SHIFTED = Path(__file__).parent / "shifted"
HOUR = 3600

CODE = f"""{WORKFLOW}
@cloaca.trigger(name="poll", poll_interval="500ms", allow_concurrent=True)
def poll():
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(f"{{time.monotonic()}} {{time.time()}}\\n")
    return cloaca.TriggerResult.skip()

@cloaca.trigger(name="tick", poll_interval="1h")
def tick():
    return cloaca.TriggerResult.skip()
"""


async def test_a_clock_that_jumps_makes_no_burst_and_no_stall(daemon: Daemon, tmp_path: Path) -> None:
    calls, shift = tmp_path / "calls", tmp_path / "shift"
    shift.write_text("0")
    daemon.environment |= {"CALLS": str(calls), "SHIFTED_CLOCK": str(shift), "PYTHONPATH": str(SHIFTED)}
    triggers = [declared("poll", poll_interval="500ms", allow_concurrent=True), declared("tick", poll_interval="1h")]
    daemon.deploy(archive(CODE, triggers=triggers))
    daemon.start()
    trigger = await daemon.trigger("demo-tick", lambda it: it.status.effective is not None)
    await daemon.update(
        trigger.with_spec(
            schedule="* * * * * *", poll_interval=None, successful_runs_history_limit=1_000, failed_runs_history_limit=9
        )
    )
    made: set[str] = set()
    for hours in (0, 1, 0, -1, 0):
        shift.write_text(str(hours * HOUR))
        so_far = calls.stat().st_size if calls.exists() else 0

        async def goes_on(store: Store, so_far: int = so_far, made: frozenset[str] = frozenset(made)) -> bool:
            runs = await store.list(WorkflowRun)
            ended = {run.name for run in runs if run.status.phase is RunPhase.COMPLETED}
            polled = calls.exists() and calls.stat().st_size > so_far
            return polled and len(ended - made) >= 2

        await daemon.eventually(f"polls and two more runs at {hours:+} h", goes_on)
        runs = await daemon.runs(lambda runs: bool(runs))
        made |= {run.name for run in runs if run.status.phase.finished}
    lines = [[float(word) for word in line.split()] for line in calls.read_text().splitlines()]
    shifts = {round((wall - mono - (lines[0][1] - lines[0][0])) / HOUR) for mono, wall in lines}
    assert shifts == {-1, 0, 1}  # the package's own processes saw the jumps
    elapsed = lines[-1][0] - lines[0][0]
    assert len(lines) <= elapsed / 0.25 + 2  # polls are half an interval apart or more
    runs = await daemon.runs(lambda runs: all(run.status.phase.finished for run in runs))
    assert len({run.spec.key for run in runs}) == len(runs)  # no second twice
    assert len(runs) <= elapsed + 20  # and none made up for an hour
