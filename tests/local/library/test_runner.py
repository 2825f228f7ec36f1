"""DefaultRunner: library mode, with real threads, databases and signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import cloaca
from cloaca.errors import (
    ContextError,
    DefinitionError,
    RunnerClosed,
    ScheduleNotFound,
    StoreUnavailable,
    WorkflowNotFound,
)


@pytest.fixture
def two_tasks() -> str:
    with cloaca.WorkflowBuilder("two") as builder:

        @cloaca.task()
        def double(context: Any) -> Any:
            context["n"] = context["n"] * 2
            return context

        @cloaca.task(dependencies=[double])
        async def add_one(context: Any) -> None:
            context["n"] += 1

    return builder.name


def test_execute_gives_the_result_of_the_workflow(url: str, two_tasks: str) -> None:
    with cloaca.DefaultRunner(url) as runner:
        result = runner.execute("two", cloaca.Context({"n": 20}))

    assert (result.status, result.error_message) == ("Completed", None)
    assert result.final_context == cloaca.Context({"n": 41})
    assert result.workflow_name == "two"
    assert result.execution_id
    assert timedelta(0) <= result.duration == result.end_time - result.start_time < timedelta(seconds=30)


@pytest.mark.parametrize("given", [cloaca.Context({"n": 1}), {"n": 1}], ids=["Context", "dict"])
def test_the_context_that_was_given_stays_as_it_is(two_tasks: str, given: Any) -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("two", given)

    assert (dict(given.items()) if isinstance(given, dict) else given.to_dict()) == {"n": 1}
    assert result.final_context["n"] == 3


def test_a_workflow_may_start_with_nothing(url: str) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: context.set("ran", True))
    with cloaca.DefaultRunner(url) as runner:
        assert runner.execute("w", cloaca.Context()).final_context.to_dict() == {"ran": True}
        assert runner.execute("w").final_context.to_dict() == {"ran": True}


def test_a_failing_task_gives_a_failed_result_that_names_it(url: str) -> None:
    ran = []
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=0)
        def load(context: Any) -> None:
            raise ValueError("no such column: amount")

        @cloaca.task(dependencies=[load])
        def report(context: Any) -> None:
            ran.append("report")

    with cloaca.DefaultRunner(url) as runner:
        result = runner.execute("w", {"given": 1})

    assert (result.status, result.error_message) == ("Failed", "task 'load' failed: ValueError: no such column: amount")
    assert result.final_context.to_dict() == {"given": 1}
    assert ran == []


def test_an_unknown_workflow_raises_and_says_which_there_are(two_tasks: str) -> None:
    with cloaca.DefaultRunner(":memory:") as runner, pytest.raises(KeyError) as error:
        runner.execute("tow", {})

    assert isinstance(error.value, WorkflowNotFound)
    assert (
        str(error.value) == "no workflow is registered as 'tow': name one that is, or define it first; registered: two"
    )


def test_a_workflow_that_is_registered_again_is_the_new_one() -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        seen = []
        for number in (1, 2):
            with cloaca.WorkflowBuilder("w"):
                cloaca.task(id="only")(lambda context, number=number: context.set("n", number))
            seen.append(runner.execute("w", {}).final_context["n"])

    assert seen == [1, 2]


@pytest.mark.parametrize(
    "given",
    [{"rows": "x" * 300_000}, {"rows": float("nan")}, {"rows": object()}, [1]],
    ids=["too large", "NaN", "an object", "no dict"],
)
def test_a_context_that_cannot_be_kept_is_refused_before_anything_runs(two_tasks: str, given: Any) -> None:
    with cloaca.DefaultRunner(":memory:") as runner, pytest.raises(ContextError):
        runner.execute("two", given)


def test_many_threads_may_execute_at_once(url: str, two_tasks: str) -> None:
    with cloaca.DefaultRunner(url) as runner, ThreadPoolExecutor(20) as callers:
        results = list(callers.map(lambda n: runner.execute("two", {"n": n}), range(100)))

    assert [result.final_context["n"] for result in results] == [n * 2 + 1 for n in range(100)]
    assert len({result.execution_id for result in results}) == 100


def test_two_runners_may_share_a_file(two_tasks: str, tmp_path: Path) -> None:
    file = str(tmp_path / "shared.db")
    with cloaca.DefaultRunner(file) as one, cloaca.DefaultRunner(file) as other, ThreadPoolExecutor(8) as callers:
        runs = [callers.submit(runner.execute, "two", {"n": n}) for n in range(20) for runner in (one, other)]

        assert [run.result().final_context["n"] for run in runs] == [n * 2 + 1 for n in range(20) for _ in "12"]


def test_a_runner_inside_an_event_loop_works_from_a_thread(two_tasks: str) -> None:
    async def main() -> Any:
        with cloaca.DefaultRunner(":memory:") as runner:
            return await asyncio.gather(*(asyncio.to_thread(runner.execute, "two", {"n": n}) for n in range(3)))

    assert [result.final_context["n"] for result in asyncio.run(main())] == [1, 3, 5]


def test_a_task_may_execute_another_workflow_from_a_thread_but_not_from_the_loop(two_tasks: str) -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        with cloaca.WorkflowBuilder("outer"):

            @cloaca.task()
            def nested(context: Any) -> None:
                context["n"] = runner.execute("two", {"n": 5}).final_context["n"]

            @cloaca.task(retry_attempts=0)
            async def stuck(context: Any) -> None:
                try:
                    runner.execute("two", {"n": 5})
                except RunnerClosed as error:
                    context["refused"] = str(error)

        result = runner.execute("outer", {})

    refused = "execute() would wait for itself: in an async task call `await asyncio.to_thread(runner.execute, …)`"
    assert result.final_context.to_dict() == {"n": 11, "refused": refused}


def test_shutdown_waits_for_what_is_under_way_and_takes_nothing_more() -> None:
    begun, go_on = threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def slow(context: Any) -> None:
            begun.set()
            assert go_on.wait(10)

    runner = cloaca.DefaultRunner(":memory:")
    with ThreadPoolExecutor(2) as callers:
        running = callers.submit(runner.execute, "w", {})
        assert begun.wait(10)
        closing = callers.submit(runner.shutdown)
        while "open" in repr(runner):
            time.sleep(0.001)
        with pytest.raises(RunnerClosed, match="the runner was shut down: make a new DefaultRunner"):
            runner.execute("w", {})
        assert not closing.done()
        go_on.set()
        closing.result(10)

        assert running.result().status == "Completed"
    runner.shutdown()
    assert repr(runner) == "DefaultRunner(shut down)"


def test_nothing_of_a_runner_stays_behind() -> None:
    before = threading.active_count()
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.execute("w", {})

    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


# --- settings


def test_with_config_bounds_the_tasks_at_once() -> None:
    now, most = [], []
    with cloaca.WorkflowBuilder("w"):
        for name in "abcdef":

            @cloaca.task(id=name)
            def counted(context: Any) -> None:
                now.append(1)
                most.append(len(now))
                time.sleep(0.005)
                now.pop()

    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=2)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner, ThreadPoolExecutor(3) as callers:
        results = list(callers.map(lambda _: runner.execute("w", {}), range(3)))

    assert [result.status for result in results] == ["Completed"] * 3
    assert max(most) == 2


def test_a_task_that_defers_lets_others_run_in_the_only_slot() -> None:
    ready = threading.Event()
    with cloaca.WorkflowBuilder("waits"):

        @cloaca.task()
        def waits(context: Any, handle: Any) -> None:
            handle.defer_until(ready.is_set, poll_interval_ms=1)

    with cloaca.WorkflowBuilder("frees"):
        cloaca.task(id="frees")(lambda context: ready.set())

    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner, ThreadPoolExecutor(2) as callers:
        results = list(callers.map(lambda name: runner.execute(name, {}), ["waits", "frees"]))

    assert [result.status for result in results] == ["Completed"] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_timeout_seconds": 1}, "task 'hangs' failed: TaskTimeout: it took longer than its 1 s"),
        (
            {"pipeline_timeout_seconds": 1},
            (
                "the run took longer than its deadline: if it may, raise activeDeadlineSeconds "
                "(pipeline_timeout_seconds of a DefaultRunner)"
            ),
        ),
    ],
    ids=["task", "run"],
)
def test_the_config_bounds_the_time(changes: dict[str, int], message: str) -> None:
    over = threading.Event()
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="hangs", retry_attempts=0)(lambda context: over.wait(60) and None)
    config = cloaca.DefaultRunnerConfig(**changes)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        result = runner.execute("w", {})
    over.set()

    assert (result.status, result.error_message) == ("Failed", message)


def test_every_setting_can_be_read_and_written_and_shown() -> None:
    config = cloaca.DefaultRunnerConfig.default()
    config.max_concurrent_tasks = 8
    config.enable_recovery = False
    config.pipeline_timeout_seconds = None

    assert config.to_dict() == {
        "max_concurrent_tasks": 8,
        "scheduler_poll_interval_ms": 100,
        "task_timeout_seconds": 300,
        "pipeline_timeout_seconds": None,
        "db_pool_size": 10,
        "enable_recovery": False,
        "enable_cron_scheduling": True,
        "cron_poll_interval_seconds": 30,
        "cron_max_catchup_executions": 100,
        "cron_enable_recovery": True,
        "cron_recovery_interval_seconds": 300,
        "cron_lost_threshold_minutes": 10,
        "cron_max_recovery_age_seconds": 86_400,
        "cron_max_recovery_attempts": 3,
    }
    assert "max_concurrent_tasks=8" in repr(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_concurrent_tasks", 0),
        ("max_concurrent_tasks", None),
        ("max_concurrent_tasks", True),
        ("task_timeout_seconds", "5"),
        ("enable_recovery", 1),
        ("pipeline_timeout_seconds", -1),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_when_it_is_made_and_when_it_is_set(name: str, value: Any) -> None:
    with pytest.raises(DefinitionError, match=f"DefaultRunnerConfig: {name} is {value!r}, but must be"):
        cloaca.DefaultRunnerConfig(**{name: value})
    with pytest.raises(DefinitionError, match=name):
        setattr(cloaca.DefaultRunnerConfig(), name, value)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AttributeError, match="DefaultRunnerConfig has no setting 'max_tasks'"):
        cloaca.DefaultRunnerConfig().max_tasks = 1  # type: ignore[attr-defined]  # the mistake under test


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("", "Schema name cannot be empty"),
        ("  ", "Schema name cannot be empty"),
        ("a-b", "must contain only alphanumeric characters and underscores"),
        ("a; drop schema public", "must contain only alphanumeric characters and underscores"),
        ("schéma", "must contain only alphanumeric characters and underscores"),
    ],
)
def test_a_schema_of_an_impossible_name_is_refused_before_any_connection(schema: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cloaca.DefaultRunner.with_schema("postgresql://nobody@nowhere.invalid/db", schema)


def test_a_schema_that_cannot_be_had_says_so() -> None:
    with pytest.raises(StoreUnavailable, match="Failed to create DefaultRunner with schema 'tenant_a'"):
        cloaca.DefaultRunner.with_schema(":memory:", "tenant_a")


# --- in a process of its own

PROGRAM = """
import sys, threading
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task(retry_attempts=0)
    {kind}def endless(context):
        print("begun", flush=True)
        {wait}

runner = cloaca.DefaultRunner(sys.argv[1])
try:
    runner.execute("w", {{}})
except KeyboardInterrupt:
    print("interrupted", flush=True)
{end}
"""
SYNC = {"kind": "", "wait": "threading.Event().wait()"}
ASYNC = {"kind": "async ", "wait": "import asyncio; await asyncio.sleep(3600)"}


def start(program: str, database: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(database)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("end", ["runner.shutdown()", ""], ids=["with shutdown", "without shutdown"])
@pytest.mark.parametrize("kind", [SYNC, ASYNC], ids=["sync task", "async task"])
def test_ctrl_c_ends_execute_at_once_and_nothing_keeps_the_program(tmp_path: Path, kind: Any, end: str) -> None:
    child = start(PROGRAM.format(**kind, end=end), tmp_path / "runs.db")
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        asked = time.monotonic()
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=60)
        waited = time.monotonic() - asked
    finally:
        child.kill()

    assert (child.returncode, out, err) == (0, "interrupted\n", "")
    assert waited < 5


def test_a_sync_task_that_hangs_does_not_keep_a_program_that_leaves() -> None:
    program = """
import threading
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task(retry_attempts=0, timeout_seconds=0.05)
    def endless(context):
        threading.Event().wait()

with cloaca.DefaultRunner(":memory:") as runner:
    print(runner.execute("w", {}).error_message)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        "task 'endless' failed: TaskTimeout: it took longer than its 0.05 s\n",
        "",
    )


def test_the_library_logs_nothing_unless_the_program_asks_for_it() -> None:
    program = """
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task(retry_attempts=1, retry_delay_ms=1, on_failure=lambda *_: 1 / 0)
    def broken(context):
        raise OSError("gone")

with cloaca.DefaultRunner(":memory:") as runner:
    print(runner.execute("w", {}).status)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "Failed\n", "")


@pytest.mark.parametrize("name", [["two"], None, 3, b"two"])
def test_what_is_no_name_of_a_workflow_is_no_workflow(two_tasks: str, name: Any) -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        with pytest.raises(WorkflowNotFound, match="name one that is, or define it first; registered: two"):
            runner.execute(name, {})
        with pytest.raises(DefinitionError, match="the workflow of a cron schedule is a text"):
            runner.register_cron_workflow(name, "0 2 * * *", "UTC")
        assert runner.get_trigger_schedule(name) is None
        assert runner.get_trigger_execution_history(name) == []
        with pytest.raises(ScheduleNotFound, match="Failed to set trigger: none is registered as"):
            runner.set_trigger_enabled(name, True)


@pytest.mark.parametrize("url", [None, 5, b"app.db", "", "  ", "app.db?color=red", "mysql://h/d"], ids=repr)
def test_what_is_no_database_url_is_refused_with_what_is_accepted(url: Any) -> None:
    with pytest.raises(StoreUnavailable, match=r"is no database URL: write|unknown option|is unknown; write"):
        cloaca.DefaultRunner(url)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no database at all, but a text of some length\n" * 100)
    before = file.read_bytes()
    with pytest.raises(StoreUnavailable, match="file is not a database: the file is something else: name another one"):
        cloaca.DefaultRunner(str(file))

    assert file.read_bytes() == before


@pytest.mark.parametrize("returned", [5, {"a": 1}, "text", False], ids=repr)
def test_a_task_that_returns_something_else_than_its_context_fails_its_run_and_says_what_to_return(
    returned: Any,
) -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=0)
        def wrong(context: Any) -> Any:
            return returned

    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("w")

    told = f"task 'wrong' failed: TaskResultError: the task returned {type(returned).__name__}; return the context, "
    assert (result.status, result.error_message) == ("Failed", f"{told}or nothing after changing it")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x"], ids=repr)
def test_a_task_that_smuggles_in_what_json_cannot_hold_fails_its_run(value: Any) -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=0)
        def smuggles(context: Any) -> None:
            context["list"] = []
            nested = context["list"]
            nested.append(value)
            context["list"] = nested

    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("w")

    assert result.status == "Failed"
    assert (result.error_message or "").startswith("task 'smuggles' failed: ContextError: ")
