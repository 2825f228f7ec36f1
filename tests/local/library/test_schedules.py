"""Cron schedules of a DefaultRunner: kept in the database, fired once for each time, and answers as documented."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import cloaca
from cloaca.errors import DefinitionError, ScheduleNotFound
from cloaca.library.cron import CronSchedules, dropped_times, due_times, run_for
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.run import WorkflowRun
from cloaca.resources.schedules import CatchupPolicy, CronSchedule, CronScheduleSpec, CronScheduleStatus
from cloaca.store import open_store

UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def fired() -> threading.Semaphore:
    """Counts the runs of the workflow "tick"."""
    ran = threading.Semaphore(0)
    with cloaca.WorkflowBuilder("tick"):
        cloaca.task(id="only")(lambda context: ran.release())
    return ran


@pytest.fixture
def runner(url: str, fired: threading.Semaphore) -> Iterator[cloaca.DefaultRunner]:
    with cloaca.DefaultRunner(url) as runner:
        yield runner


def test_a_schedule_fires_its_workflow_with_the_time_it_is_for(
    runner: cloaca.DefaultRunner, fired: threading.Semaphore
) -> None:
    schedule = runner.register_cron_workflow("tick", "* * * * * *", "Europe/Zurich")

    assert fired.acquire(timeout=60)
    history = runner.get_cron_execution_history(schedule)
    assert {entry["schedule_id"] for entry in history} == {schedule}
    assert datetime.fromisoformat(history[-1]["scheduled_time"]).microsecond == 0


def test_what_is_registered_is_listed(runner: cloaca.DefaultRunner) -> None:
    first = runner.register_cron_workflow("tick", "0 2 * * *", "Europe/Zurich")
    second = runner.register_cron_workflow("tick", "@daily", None)
    runner.set_cron_schedule_enabled(second, False)

    listed = runner.list_cron_schedules(None, None, None)
    assert [entry["id"] for entry in listed] == [first, second]
    assert [entry["id"] for entry in runner.list_cron_schedules(True)] == [first]
    assert [entry["id"] for entry in runner.list_cron_schedules(None, 1, 1)] == [second]
    assert listed[0] == runner.get_cron_schedule(first)
    assert set(listed[0]) == {
        *("id", "workflow_name", "cron_expression", "timezone", "enabled", "catchup_policy"),
        *("next_run_at", "last_run_at", "created_at", "updated_at"),
    }
    assert (listed[0]["cron_expression"], listed[0]["timezone"]) == ("0 2 * * *", "Europe/Zurich")
    assert datetime.fromisoformat(listed[0]["next_run_at"]) > datetime.now(timezone.utc)
    assert (listed[1]["timezone"], listed[1]["enabled"], listed[1]["next_run_at"]) == ("UTC", False, None)


def test_a_schedule_can_be_changed_switched_and_deleted(runner: cloaca.DefaultRunner) -> None:
    schedule = runner.register_cron_workflow("tick", "0 2 * * *", "UTC")

    runner.update_cron_schedule(schedule, "0 3 * * *", "Europe/Zurich")
    changed = runner.get_cron_schedule(schedule)
    assert (changed["cron_expression"], changed["timezone"]) == ("0 3 * * *", "Europe/Zurich")

    runner.delete_cron_schedule(schedule)
    assert runner.list_cron_schedules() == []
    with pytest.raises(ScheduleNotFound, match="Failed to get cron schedule"):
        runner.get_cron_schedule(schedule)


def test_schedules_outlive_their_runner(lasting: str, fired: threading.Semaphore) -> None:
    with cloaca.DefaultRunner(lasting) as runner:
        schedule = runner.register_cron_workflow("tick", "0 2 * * *", "UTC")
    with cloaca.DefaultRunner(lasting) as runner:
        assert [entry["id"] for entry in runner.list_cron_schedules()] == [schedule]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.get_cron_schedule(UNKNOWN), ScheduleNotFound, "Failed to get cron schedule"),
        (
            lambda r: r.update_cron_schedule(UNKNOWN, "0 1 * * *", "UTC"),
            ScheduleNotFound,
            "Failed to update cron schedule",
        ),
        (lambda r: r.set_cron_schedule_enabled(UNKNOWN, True), ScheduleNotFound, "Failed to update cron schedule"),
        (lambda r: r.delete_cron_schedule(UNKNOWN), ScheduleNotFound, "Failed to delete cron schedule"),
        (lambda r: r.get_cron_schedule("nonsense"), DefinitionError, "Invalid schedule ID 'nonsense'"),
        (lambda r: r.update_cron_schedule("nonsense", "0 1 * * *", "UTC"), DefinitionError, "Invalid schedule ID"),
        (lambda r: r.delete_cron_schedule(None), DefinitionError, "Invalid schedule ID"),
        (lambda r: r.get_cron_execution_history("nonsense"), DefinitionError, "Invalid schedule ID"),
        (lambda r: r.get_cron_execution_stats("yesterday"), DefinitionError, "Invalid datetime format 'yesterday'"),
        (lambda r: r.register_cron_workflow("tick", "invalid", "UTC"), DefinitionError, "is no cron expression"),
        (lambda r: r.register_cron_workflow("tick", "0 1 * * *", "Mars/Base"), DefinitionError, "is no time zone"),
        (
            lambda r: r.register_cron_workflow("tick", "0 1 * * *", "UTC", "sometimes"),
            DefinitionError,
            "catchup_policy is 'sometimes', but must be one of skip, run_all",
        ),
        (lambda r: r.list_cron_schedules(None, -1), DefinitionError, "limit is -1"),
    ],
    ids=range(13),
)
def test_what_cannot_be_is_refused_with_its_documented_error(
    runner: cloaca.DefaultRunner, call: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as refusal:
        call(runner)
    assert isinstance(refusal.value, (ValueError, KeyError))


def test_stats_count_what_ran_since(runner: cloaca.DefaultRunner, fired: threading.Semaphore) -> None:
    assert runner.get_cron_execution_stats("2026-01-01T00:00:00Z") == {
        "total_executions": 0,
        "successful_executions": 0,
        "lost_executions": 0,
        "dropped_executions": 0,
        "success_rate": 0.0,
    }
    runner.register_cron_workflow("tick", "* * * * * *", "UTC")
    assert fired.acquire(timeout=60)
    assert fired.acquire(timeout=60)

    stats = runner.get_cron_execution_stats("2026-01-01T00:00:00")
    assert stats["total_executions"] >= 2
    assert stats["lost_executions"] == 0
    later = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
    assert runner.get_cron_execution_stats(later)["total_executions"] == 0


def test_two_runners_on_one_database_fire_each_time_once(lasting: str, fired: threading.Semaphore) -> None:
    config = cloaca.DefaultRunnerConfig(cron_poll_interval_seconds=1)
    with (
        cloaca.DefaultRunner.with_config(lasting, config) as one,
        cloaca.DefaultRunner.with_config(lasting, config) as other,
    ):
        schedule = one.register_cron_workflow("tick", "* * * * * *", "UTC")
        for _ in range(3):
            assert fired.acquire(timeout=60)
        other.delete_cron_schedule(schedule)

    with cloaca.DefaultRunner(lasting) as reader:
        history = reader.get_cron_execution_history(schedule)
    times = [entry["scheduled_time"] for entry in history]
    assert len(times) == len(set(times))
    ran = 3
    while fired.acquire(blocking=False):
        ran += 1
    assert ran == len(times)


def test_a_runner_without_cron_keeps_schedules_and_fires_none(fired: threading.Semaphore) -> None:
    config = cloaca.DefaultRunnerConfig(enable_cron_scheduling=False)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        schedule = runner.register_cron_workflow("tick", "* * * * * *", "UTC")
        assert runner.get_cron_schedule(schedule)["last_run_at"] is None
        assert runner._firing is None


# --- what is caught up on

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def a_schedule(policy: CatchupPolicy, covered: datetime | None = None) -> CronSchedule:
    return CronSchedule(
        metadata=ObjectMeta(name=UNKNOWN),
        spec=CronScheduleSpec(
            workflow="tick", expression="0 * * * *", time_zone="UTC", catchup_policy=policy, changed_at=NOON
        ),
        status=CronScheduleStatus(covered_until=covered),
    )


@pytest.mark.parametrize(
    ("schedule", "now", "hours"),
    [
        (a_schedule(CatchupPolicy.SKIP), 0.5, []),
        (a_schedule(CatchupPolicy.SKIP), 5.5, [5]),
        (a_schedule(CatchupPolicy.SKIP, NOON + timedelta(hours=5)), 5.5, []),
        (a_schedule(CatchupPolicy.RUN_ALL), 3, [1, 2, 3]),
        (a_schedule(CatchupPolicy.RUN_ALL), 100, [1, 2, 3, 4]),
        (a_schedule(CatchupPolicy.RUN_ALL, NOON + timedelta(hours=2)), 3, [3]),
    ],
    ids=["nothing due", "the last of five", "covered", "all of three", "no more than the limit", "what is not covered"],
)
def test_missed_times_are_caught_up_on_as_the_policy_says(schedule: CronSchedule, now: float, hours: list[int]) -> None:
    found = due_times(schedule, NOON + timedelta(hours=now), 4)

    assert found == tuple(NOON + timedelta(hours=hour) for hour in hours)


@pytest.mark.usefixtures("fired")
async def test_times_beyond_the_limit_are_logged_and_counted(lasting: str, caplog: pytest.LogCaptureFixture) -> None:
    store = await open_store(lasting)
    config = cloaca.DefaultRunnerConfig(cron_max_catchup_executions=2)
    try:
        await store.create(a_schedule(CatchupPolicy.RUN_ALL))  # of each hour since a day in the past
        async with store.changes() as changes:
            with (
                caplog.at_level(logging.WARNING, "cloaca"),
                cloaca.DefaultRunner.with_config(lasting, config) as runner,
            ):
                while runner.get_cron_schedule(UNKNOWN)["last_run_at"] is None:
                    await changes.__anext__()
                stats = runner.get_cron_execution_stats(NOON.isoformat())
    finally:
        await store.close()

    assert (stats["total_executions"], stats["dropped_executions"] > 100) == (2, True)
    assert f"cron schedule {UNKNOWN} of 'tick': {stats['dropped_executions']} missed times from " in caplog.text
    assert "are dropped: they are more than cron_max_catchup_executions" in caplog.text


@pytest.mark.parametrize(
    ("policy", "now", "last", "dropped"),
    [
        (CatchupPolicy.RUN_ALL, 3.5, 3, None),
        (CatchupPolicy.RUN_ALL, 6.5, 4, (2, 5, 6)),
        (CatchupPolicy.SKIP, 6.5, 6, None),
    ],
    ids=["all run", "two are too many", "skip drops by its nature"],
)
def test_what_is_dropped(policy: CatchupPolicy, now: float, last: int, dropped: tuple[int, int, int] | None) -> None:
    found = dropped_times(a_schedule(policy), NOON + timedelta(hours=now), NOON + timedelta(hours=last))

    if dropped is None:
        assert found is None
    else:
        count, first, latest = dropped
        assert found is not None
        assert (found.count, found.first, found.last) == (
            count,
            NOON + timedelta(hours=first),
            NOON + timedelta(hours=latest),
        )


def test_a_time_of_a_schedule_has_one_run_name() -> None:
    schedule = a_schedule(CatchupPolicy.SKIP)

    assert run_for(schedule, NOON) == run_for(schedule, NOON)
    assert run_for(schedule, NOON).name != run_for(schedule, NOON + timedelta(hours=1)).name


# --- the clock


MIDDAY = datetime(2026, 3, 28, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize("policy", list(CatchupPolicy), ids=lambda policy: policy.value)
async def test_a_clock_that_is_set_makes_no_stall_no_burst_and_no_time_twice(policy: CatchupPolicy) -> None:
    store = await open_store(":memory:")
    spec = CronScheduleSpec(
        workflow="tick", expression="*/10 * * * * *", time_zone="UTC", catchup_policy=policy, changed_at=MIDDAY
    )
    schedule = await store.create(CronSchedule(metadata=ObjectMeta(name="s"), spec=spec))
    made: list[str] = []

    async def submit(workflow: Any, run: WorkflowRun) -> bool:
        if run.name in made:
            return False
        made.append(run.name)
        return True

    with cloaca.WorkflowBuilder("tick") as builder:
        cloaca.task(id="only")(lambda context: None)
    config = cloaca.DefaultRunnerConfig(cron_max_catchup_executions=5)
    schedules = CronSchedules(store, config, {"tick": builder.build()}, submit)
    hour, counts = timedelta(hours=1), []
    for now in (
        MIDDAY + timedelta(seconds=11),  # 12:00:10
        MIDDAY - hour,  # set back: from here
        MIDDAY - hour + timedelta(seconds=11),  # 11:00:10
        MIDDAY + timedelta(seconds=12),  # set right: of the hour between, what the policy wants; 12:00:10 has its run
        MIDDAY + timedelta(seconds=21),
    ):
        await schedules.fire_due(now)
        counts.append(len(made))
    caught_up = 5 if policy is CatchupPolicy.RUN_ALL else 0
    assert counts == [1, 1, 2, 2 + caught_up, 3 + caught_up]
    assert schedule.name in {found.name for found in await store.list(CronSchedule)}
    await store.close()
