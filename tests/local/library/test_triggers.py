"""Triggers of the program itself: really polled by the runner, each in its own time."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

import cloaca
from cloaca.errors import ScheduleNotFound


class Workflow:
    """A workflow that waits where it is told to, and counts what it ran."""

    def __init__(self, name: str = "ingest") -> None:
        self.ran = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.contexts: list[dict[str, Any]] = []
        with cloaca.WorkflowBuilder(name):

            @cloaca.task(id=f"{name}_only")
            def only(context: Any) -> None:
                self.contexts.append(context.to_dict())
                self.ran.release()
                assert self.go_on.wait(30)


def test_a_trigger_is_polled_and_fires_with_its_context(url: str) -> None:
    workflow = Workflow()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def inbox() -> Any:
        return cloaca.TriggerResult.fire({"file": "a.csv"})

    with cloaca.DefaultRunner(url) as runner:
        assert workflow.ran.acquire(timeout=20)
        assert workflow.ran.acquire(timeout=20)
        shown = runner.get_trigger_schedule("inbox")
        fires = runner.get_trigger_execution_history("inbox", None, None)
        assert runner.get_trigger_execution_history("inbox", 1, 1) == fires[1:2] or len(fires) > 2

    assert workflow.contexts[0] == {"file": "a.csv"}
    assert shown is not None
    assert (shown["workflow_name"], shown["poll_interval_ms"], shown["allow_concurrent"]) == ("ingest", 100, False)
    assert shown["last_poll_at"] is not None
    assert set(fires[0]) == {
        *("id", "schedule_id", "context_hash", "workflow_execution_id", "started_at", "completed_at", "created_at")
    }
    assert {fire["context_hash"] for fire in fires} == {fires[0]["context_hash"]}
    assert {fire["schedule_id"] for fire in fires} == {shown["id"]}


def test_a_trigger_that_is_defined_later_is_polled_too() -> None:
    workflow = Workflow()
    with cloaca.DefaultRunner(":memory:"):

        @cloaca.trigger(workflow="ingest", poll_interval="100ms")
        async def late() -> Any:
            return cloaca.TriggerResult.fire()

        assert workflow.ran.acquire(timeout=20)


def test_runs_of_one_trigger_never_overlap_unless_it_allows_it() -> None:
    workflow, polls = Workflow(), threading.Semaphore(0)
    workflow.go_on.clear()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def inbox() -> Any:
        polls.release()
        return cloaca.TriggerResult.fire()

    other, beat = Workflow("beat"), []

    @cloaca.trigger(workflow="beat", poll_interval="100ms", allow_concurrent=True)
    def beats() -> Any:
        beat.append(1)
        return cloaca.TriggerResult.fire()

    with cloaca.DefaultRunner(":memory:"):
        assert workflow.ran.acquire(timeout=20)
        while other.ran.acquire(timeout=20) and len(beat) < 5:  # time passes in which it would have been polled
            pass
        assert len(workflow.contexts) == 1
        workflow.go_on.set()
        assert workflow.ran.acquire(timeout=20)


def test_a_trigger_that_hangs_delays_no_other(caplog: pytest.LogCaptureFixture) -> None:
    workflow, hanging, over = Workflow(), threading.Event(), threading.Event()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def hangs() -> Any:
        hanging.set()
        over.wait(60)
        return cloaca.TriggerResult.skip()

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def works() -> Any:
        return cloaca.TriggerResult.fire() if hanging.is_set() else cloaca.TriggerResult.skip()

    with cloaca.DefaultRunner(":memory:"):
        assert workflow.ran.acquire(timeout=20)
        assert workflow.ran.acquire(timeout=20)
        over.set()


def test_a_poll_that_fails_is_told_and_does_not_end_the_polling(caplog: pytest.LogCaptureFixture) -> None:
    workflow, calls = Workflow(), []

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def flaky() -> Any:
        calls.append(1)
        if len(calls) == 1:
            return "fire!"
        return cloaca.TriggerResult.fire()

    with caplog.at_level(logging.WARNING, "cloaca"), cloaca.DefaultRunner(":memory:"):
        assert workflow.ran.acquire(timeout=20)

    assert "trigger flaky: poll failed: TriggerResultError: the function returned str 'fire!'" in caplog.text


def test_a_trigger_that_is_switched_off_is_not_polled_and_stays_off(tmp_path: Path) -> None:
    file = str(tmp_path / "runs.db")
    workflow, beats, calls = Workflow(), Workflow("beat"), []

    @cloaca.trigger(workflow="beat", poll_interval="100ms")
    def beat() -> Any:
        return cloaca.TriggerResult.fire()

    @cloaca.trigger(workflow="ingest", poll_interval="1h")
    def inbox() -> Any:
        calls.append(1)
        return cloaca.TriggerResult.skip()

    with cloaca.DefaultRunner(file) as runner:
        runner.set_trigger_enabled("inbox", False)
        assert [entry["trigger_name"] for entry in runner.list_trigger_schedules(True)] == ["beat"]
    with cloaca.DefaultRunner(file) as runner:
        shown = runner.get_trigger_schedule("inbox")
        assert shown is not None
        assert not shown["enabled"]
        runner.set_trigger_enabled("inbox", True)
        assert len(runner.list_trigger_schedules(True, None, None)) == 2
        assert beats.ran.acquire(timeout=20)
    assert calls == []
    assert workflow.contexts == []


def test_unknown_triggers_are_none_or_an_error() -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.get_trigger_schedule("nobody") is None
        assert runner.get_trigger_execution_history("nobody") == []
        with pytest.raises(ScheduleNotFound, match="none is registered as 'nobody'; registered: none"):
            runner.set_trigger_enabled("nobody", True)


def test_a_key_fires_once_over_all_polls_and_runners(tmp_path: Path) -> None:
    file = str(tmp_path / "runs.db")
    workflow, polls = Workflow(), threading.Semaphore(0)

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def inbox() -> Any:
        polls.release()
        return [cloaca.TriggerResult.fire({"file": name}, key=name) for name in ("a", "b")]

    for _ in range(2):
        with cloaca.DefaultRunner(file):
            for _ in range(2):
                assert polls.acquire(timeout=20)

    assert sorted(context["file"] for context in workflow.contexts) == ["a", "b"]
