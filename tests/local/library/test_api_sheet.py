"""What programs written for this API rely on and other tests do not say: each on every backend where it may differ."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import cloaca
from cloaca.errors import DefinitionError
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.phases import RunPhase, TaskPhase
from cloaca.resources.run import WorkflowRun
from cloaca.resources.schedules import CatchupPolicy, CronSchedule, CronScheduleSpec
from cloaca.store import open_store


def test_tasks_without_a_path_between_them_run_in_parallel(url: str) -> None:
    together = threading.Barrier(3)
    with cloaca.WorkflowBuilder("wide"):
        for number in range(3):

            @cloaca.task(id=f"task-{number}", retry_attempts=0)
            def meet(context: Any) -> None:
                together.wait(60)  # breaks, and fails the run, unless all three are here

    with cloaca.DefaultRunner(url) as runner:
        result = runner.execute("wide")

    assert (result.status, result.error_message) == ("Completed", None)


async def test_a_failed_run_says_which_task_and_keeps_traceback_and_what_was_skipped(lasting: str) -> None:
    with cloaca.WorkflowBuilder("broken"):

        @cloaca.task(retry_attempts=0)
        def load(context: Any) -> None:
            raise OSError("disk full")

        cloaca.task(id="report", dependencies=[load])(lambda context: None)
        cloaca.task(id="publish", dependencies=["report"])(lambda context: None)
        cloaca.task(id="other")(lambda context: None)

    with cloaca.DefaultRunner(lasting) as runner:
        result = runner.execute("broken")
    assert (result.status, result.error_message) == ("Failed", "task 'load' failed: OSError: disk full")

    store = await open_store(lasting)
    try:
        (run,) = await store.list(WorkflowRun)
    finally:
        await store.close()
    assert run.status.phase is RunPhase.FAILED
    assert {task.id: task.phase for task in run.status.tasks} == {
        "load": TaskPhase.FAILED,
        "report": TaskPhase.SKIPPED,
        "publish": TaskPhase.SKIPPED,
        "other": TaskPhase.COMPLETED,
    }
    assert 'raise OSError("disk full")' in (run.status.traceback or "")


def test_a_result_tells_the_run_and_its_times(url: str) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner(url) as runner:
        first, second = runner.execute("w"), runner.execute("w")

    assert first.workflow_name == second.workflow_name == "w"
    assert first.execution_id != second.execution_id
    assert first.start_time.tzinfo is not None
    assert first.start_time <= first.end_time <= second.end_time
    assert first.duration == first.end_time - first.start_time


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), [1, float("nan")]], ids=repr)
def test_a_number_that_json_has_not_is_refused_and_never_becomes_null(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        cloaca.Context().set("number", value)
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=0)
        def only(context: Any) -> Any:
            context.to_dict()
            context["number"] = value

    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("w")

    assert result.status == "Failed"
    assert "number" in (result.error_message or "")
    assert "number" not in result.final_context


def test_every_optional_argument_of_the_schedule_methods_may_be_none_by_position(url: str) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="w", name="inbox", poll_interval="1h")(cloaca.TriggerResult.skip)
    with cloaca.DefaultRunner(url) as runner:
        schedule = runner.register_cron_workflow("w", "0 2 * * *", None)
        assert len(runner.list_cron_schedules(None, None, None)) == 1
        assert runner.get_cron_schedule(schedule)["timezone"] == "UTC"
        runner.update_cron_schedule(schedule, None, "Europe/Zurich")
        runner.update_cron_schedule(schedule, "0 3 * * *", None)
        shown = runner.get_cron_schedule(schedule)
        assert (shown["cron_expression"], shown["timezone"]) == ("0 3 * * *", "Europe/Zurich")
        assert runner.get_cron_execution_history(schedule, None, None) == []
        assert [it["trigger_name"] for it in runner.list_trigger_schedules(None, None, None)] == ["inbox"]
        assert runner.get_trigger_execution_history("inbox", None, None) == []
        with pytest.raises(DefinitionError, match="offset is -1"):
            runner.list_trigger_schedules(None, None, -1)


async def test_the_time_that_a_schedule_was_switched_off_is_not_caught_up_on(lasting: str) -> None:
    ticked, named = threading.Event(), "00000000-0000-0000-0000-000000000001"
    with cloaca.WorkflowBuilder("hourly"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.WorkflowBuilder("tick"):
        cloaca.task(id="tick")(lambda context: ticked.set())
    store = await open_store(lasting)
    try:
        await store.create(
            CronSchedule(
                metadata=ObjectMeta(name=named),
                spec=CronScheduleSpec(
                    workflow="hourly",
                    expression="0 * * * *",
                    time_zone="UTC",
                    catchup_policy=CatchupPolicy.RUN_ALL,
                    enabled=False,
                    changed_at=datetime.now(timezone.utc) - timedelta(days=3),
                ),
            )
        )
    finally:
        await store.close()
    with cloaca.DefaultRunner(lasting) as runner:
        assert runner.get_cron_schedule(named)["next_run_at"] is None
        runner.set_cron_schedule_enabled(named, True)
        runner.register_cron_workflow("tick", "* * * * * *", "UTC")
        assert ticked.wait(60)  # so all schedules have been looked at
        late = [entry["scheduled_time"] for entry in runner.get_cron_execution_history(named)]
        following = datetime.fromisoformat(runner.get_cron_schedule(named)["next_run_at"])

    assert len(late) <= 1  # one hour may have struck meanwhile
    assert timedelta(0) < following - datetime.now(timezone.utc) <= timedelta(hours=1)
