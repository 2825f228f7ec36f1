"""A trigger with a schedule fires by the clock; its function is never called."""

from __future__ import annotations

from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import RunPhase
from cloaca.resources.conditions import find

CODE = f"""{WORKFLOW}
@cloaca.trigger(name="tick", poll_interval="1h")
def tick():
    return cloaca.TriggerResult.skip()
"""


async def test_runs_are_made_by_the_clock_and_missed_ones_after_a_crash_are_one(daemon: Daemon) -> None:
    daemon.deploy(archive(CODE, triggers=[declared("tick", poll_interval="1h")]))
    daemon.start()
    trigger = await daemon.trigger("demo-tick", lambda it: it.status.effective is not None)
    await daemon.update(trigger.with_spec(schedule="* * * * * *", poll_interval=None))
    runs = await daemon.runs(lambda runs: sum(it.status.phase is RunPhase.COMPLETED for it in runs) >= 2)
    assert all(run.name == f"demo-tick-at-{run.name.rpartition('-')[2]}" for run in runs)
    assert all(run.spec.context["scheduled_time"] == run.spec.key for run in runs)
    daemon.kill()
    before = await daemon.trigger("demo-tick", lambda it: it.status.scheduled_until is not None)
    daemon.start()
    after = await daemon.trigger(
        "demo-tick",
        lambda it: it.status.scheduled_until > before.status.scheduled_until,  # type: ignore[operator]  # both are set
    )
    polling = find(after.status.conditions, "Polling")
    assert polling is not None
    assert (polling.status.value, polling.reason) == ("True", "Scheduled")


async def test_an_expression_that_is_none_stalls_the_trigger_and_says_why(daemon: Daemon) -> None:
    daemon.deploy(archive(CODE, triggers=[declared("tick", poll_interval="1h")]))
    daemon.start()
    trigger = await daemon.trigger("demo-tick", lambda it: it.status.effective is not None)
    await daemon.update(trigger.with_spec(schedule="61 * * * *", poll_interval=None))
    stalled = await daemon.trigger("demo-tick", lambda it: find(it.status.conditions, "Stalled") is not None)
    ready = find(stalled.status.conditions, "Ready")
    assert ready is not None
    assert (ready.reason, "61 * * * *" in ready.message) == ("ScheduleInvalid", True)
