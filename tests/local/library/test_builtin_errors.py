"""Which built-in exceptions programs of the 0.5 API may catch: every error that its sheet names, with its words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cloaca
from cloaca import Context, DefaultRunner, WorkflowBuilder

UNKNOWN = "00000000-0000-0000-0000-000000000000"


class Case(NamedTuple):
    """A call, what it must be an instance of, and what its message must contain."""

    call: Callable[..., object]
    kind: type[Exception]
    words: str


OF_A_RUNNER = {
    "execute an unknown workflow": Case(lambda r: r.execute("nope", Context()), ValueError, "'nope'"),
    "execute what is not a name": Case(lambda r: r.execute(None), ValueError, "no workflow is registered as None"),
    "execute with what is not a context": Case(lambda r: r.execute("w", "text"), ValueError, "made from a dict"),
    "execute with too much": Case(lambda r: r.execute("w", {"x": "y" * 300_000}), ValueError, "over the limit"),
    "get an unknown schedule": Case(lambda r: r.get_cron_schedule(UNKNOWN), ValueError, "Failed to get cron schedule"),
    "update an unknown schedule": Case(
        lambda r: r.update_cron_schedule(UNKNOWN, "0 1 * * *", "UTC"), ValueError, "Failed to update cron schedule"
    ),
    "switch an unknown schedule": Case(
        lambda r: r.set_cron_schedule_enabled(UNKNOWN, False), ValueError, "Failed to update cron schedule"
    ),
    "delete an unknown schedule": Case(
        lambda r: r.delete_cron_schedule(UNKNOWN), ValueError, "Failed to delete cron schedule"
    ),
    "history of an unknown schedule": Case(
        lambda r: r.get_cron_execution_history(UNKNOWN), ValueError, "Failed to get cron schedule"
    ),
    **{
        f"{name} a malformed id": Case(call, ValueError, "Invalid schedule ID")
        for name, call in {
            "get": lambda r: r.get_cron_schedule("nonsense"),
            "update": lambda r: r.update_cron_schedule("nonsense", "0 1 * * *", "UTC"),
            "switch": lambda r: r.set_cron_schedule_enabled("nonsense", True),
            "delete": lambda r: r.delete_cron_schedule("nonsense"),
            "delete None as": lambda r: r.delete_cron_schedule(None),
            "get a number as": lambda r: r.get_cron_schedule(7),
            "history of": lambda r: r.get_cron_execution_history("nonsense"),
            "history of surrogates as": lambda r: r.get_cron_execution_history("\ud800"),
        }.items()
    },
    "a bad expression": Case(lambda r: r.register_cron_workflow("w", "every day", "UTC"), ValueError, "every day"),
    "an expression that never comes": Case(
        lambda r: r.register_cron_workflow("w", "0 0 31 2 *", "UTC"), ValueError, "0 0 31 2 *"
    ),
    "a bad zone": Case(lambda r: r.register_cron_workflow("w", "0 1 * * *", "Mars/Base"), ValueError, "Mars/Base"),
    "a zone out of the folder": Case(
        lambda r: r.register_cron_workflow("w", "0 1 * * *", "../../etc/passwd"), ValueError, "passwd"
    ),
    "an expression that is not a string": Case(lambda r: r.register_cron_workflow("w", 5, "UTC"), ValueError, "5"),
    "a schedule without a workflow": Case(lambda r: r.register_cron_workflow("", "0 1 * * *", "UTC"), ValueError, "''"),
    "a bad expression for an update": Case(
        lambda r: r.update_cron_schedule(r.register_cron_workflow("w", "0 1 * * *", "UTC"), "bad", None),
        ValueError,
        "bad",
    ),
    "a bad date": Case(
        lambda r: r.get_cron_execution_stats("yesterday"), ValueError, "Invalid datetime format 'yesterday'"
    ),
    "a date that is none": Case(lambda r: r.get_cron_execution_stats(None), ValueError, "Invalid datetime format"),
    "a negative limit": Case(lambda r: r.list_cron_schedules(None, -1), ValueError, "limit is -1"),
    "a limit that is not a number": Case(lambda r: r.list_trigger_schedules(None, "x"), ValueError, "limit is 'x'"),
    "switch an unknown trigger": Case(lambda r: r.set_trigger_enabled("nobody", True), ValueError, "'nobody'"),
    "use after shutdown": Case(lambda r: (r.shutdown(), r.execute("w")), ValueError, "the runner was shut down"),
    "list after shutdown": Case(
        lambda r: (r.shutdown(), r.list_cron_schedules()), ValueError, "the runner was shut down"
    ),
}


@pytest.fixture
def runner(url: str) -> Iterator[DefaultRunner]:
    with WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    with DefaultRunner(url) as runner:
        yield runner


@pytest.mark.parametrize("case", OF_A_RUNNER.values(), ids=OF_A_RUNNER.keys())
def test_what_a_call_of_a_runner_raises(runner: DefaultRunner, case: Case) -> None:
    _check(case, runner)


OF_OPENING = {
    "a scheme that is unknown": Case(lambda tmp: DefaultRunner("mysql://localhost/db"), ValueError, "mysql"),
    "nothing": Case(lambda tmp: DefaultRunner(""), ValueError, "database URL"),
    "None": Case(lambda tmp: DefaultRunner(None), ValueError, "database URL"),  # type: ignore[arg-type]
    "a folder that is not there": Case(lambda tmp: DefaultRunner(f"{tmp}/no/x.db"), ValueError, "folder must exist"),
    "a file that must be there": Case(
        lambda tmp: DefaultRunner(f"sqlite:///{tmp}/x.db?mode=rw"), ValueError, "unable to open"
    ),
    "a host that is not there": Case(
        lambda tmp: DefaultRunner(f"postgresql://me:secret@/db?host={tmp}"), ValueError, "postgresql://me:***@/db"
    ),
    "settings, and a host that is not there": Case(
        lambda tmp: DefaultRunner.with_config(f"postgresql://me@/db?host={tmp}", cloaca.DefaultRunnerConfig()),
        ValueError,
        "postgresql://me@/db",
    ),
    "a schema without a name": Case(
        lambda tmp: DefaultRunner.with_schema("postgresql://h/d", ""), ValueError, "Schema name cannot be empty"
    ),
    "a schema of a bad name": Case(
        lambda tmp: DefaultRunner.with_schema("postgresql://h/d", "a-b"),
        ValueError,
        "must contain only alphanumeric characters and underscores",
    ),
    "a schema on a host that is not there": Case(
        lambda tmp: DefaultRunner.with_schema(f"postgresql://me@/db?host={tmp}", "a"),
        ValueError,
        "Failed to create DefaultRunner with schema",
    ),
    "a schema of SQLite": Case(
        lambda tmp: DefaultRunner.with_schema(":memory:", "a"), ValueError, "Failed to create DefaultRunner with schema"
    ),
    "a setting that is no number": Case(
        lambda tmp: cloaca.DefaultRunnerConfig(max_concurrent_tasks=0), ValueError, "max_concurrent_tasks is 0"
    ),
}


@pytest.mark.parametrize("case", OF_OPENING.values(), ids=OF_OPENING.keys())
def test_what_opening_a_runner_raises(case: Case, tmp_path: Path) -> None:
    _check(case, tmp_path)


def _task(**arguments: Any) -> None:
    with WorkflowBuilder("w"):
        cloaca.task(**arguments)(lambda context: None)


def _cycle() -> None:
    with WorkflowBuilder("w"):
        cloaca.task(id="a", dependencies=["b"])(lambda context: None)
        cloaca.task(id="b", dependencies=["a"])(lambda context: None)


OF_DEFINITIONS = {
    "a value that is not JSON": Case(
        lambda: Context({"key": object()}), ValueError, "'key' is of type builtins.object"
    ),
    "set to what is not JSON": Case(lambda: Context().set("key", {1}), ValueError, "'key' is of type builtins.set"),
    "a key that exists": Case(lambda: Context({"a": 1}).insert("a", 2), ValueError, "'a' already exists"),
    "update of a missing key": Case(lambda: Context().update("a", 2), KeyError, "no key 'a'"),
    "a missing key": Case(lambda: Context()["a"], KeyError, "no key 'a'"),
    "deletion of a missing key": Case(lambda: Context().__delitem__("a"), KeyError, "no key 'a'"),
    "what is not JSON text": Case(lambda: Context.from_json("{"), ValueError, "not JSON"),
    "JSON that is not an object": Case(lambda: Context.from_json("[]"), ValueError, "JSON object"),
    "a task id that is unknown": Case(
        lambda: WorkflowBuilder("w").add_task("x"), ValueError, "Task 'x' not found in registry"
    ),
    "what is neither id nor function": Case(
        lambda: WorkflowBuilder("w").add_task(5),  # type: ignore[arg-type]
        ValueError,
        "must be either a string task ID or a function object",
    ),
    "no tasks": Case(lambda: WorkflowBuilder("w").build(), ValueError, "cannot be empty"),
    "a cycle": Case(_cycle, ValueError, "has a cycle: a"),
    "an unknown dependency": Case(lambda: _task(id="a", dependencies=["b"]), ValueError, "'b'"),
    "a workflow without a name": Case(lambda: WorkflowBuilder(""), ValueError, "''"),
    "a constructor of something else": Case(
        lambda: cloaca.register_workflow_constructor("w", lambda: None),  # type: ignore[arg-type,return-value]
        ValueError,
        "NoneType, not a Workflow",
    ),
    "a backoff that is unknown": Case(lambda: _task(id="a", retry_backoff="cubic"), ValueError, "cubic"),
    "a condition that is unknown": Case(lambda: _task(id="a", retry_condition="often"), ValueError, "often"),
    "a negative number of retries": Case(lambda: _task(id="a", retry_attempts=-1), ValueError, "-1"),
    "a task outside of a workflow": Case(lambda: cloaca.task()(print), ValueError, "outside of a workflow"),
    "an interval that is none": Case(
        lambda: cloaca.trigger(workflow="w", name="t", poll_interval="soon")(lambda: None), ValueError, "soon"
    ),
    "a trigger without a name": Case(lambda: cloaca.trigger(workflow="w", name="")(lambda: None), ValueError, "''"),
    "a key that is not a string": Case(lambda: cloaca.TriggerResult.fire({}, key=5), ValueError, "key is 5"),  # type: ignore[arg-type]
    "a context that is none": Case(lambda: cloaca.TriggerResult.fire(5), ValueError, "from a dict"),  # type: ignore[arg-type]
    "a variable that is not set": Case(lambda: cloaca.var("NOT_SET_HERE"), KeyError, "CLOACINA_VAR_NOT_SET_HERE"),
}


@pytest.mark.parametrize("case", OF_DEFINITIONS.values(), ids=OF_DEFINITIONS.keys())
def test_what_a_definition_raises(case: Case) -> None:
    assert "CLOACINA_VAR_NOT_SET_HERE" not in os.environ
    _check(case)


def _check(case: Case, *arguments: object) -> None:
    with pytest.raises(case.kind) as caught:
        case.call(*arguments)
    assert isinstance(caught.value, cloaca.CloacaError)
    assert case.words in str(caught.value)
    assert "secret" not in str(caught.value)
