"""What a process leaves when it is killed: another one resumes it, never two, and not for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest

import cloaca
from cloaca.authoring.registry import active_registry
from cloaca.engine.config import DefaultRunnerConfig
from cloaca.engine.journal import StoreJournal
from cloaca.errors import RunLost
from cloaca.library.presence import Presence, is_gone, this_process
from cloaca.library.recovery import claimed, recover
from cloaca.library.triggers import TriggerSchedules
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.names import run_labels
from cloaca.resources.phases import RunPhase
from cloaca.resources.run import RunSpec, RunStatus, WorkflowRun
from cloaca.resources.schedules import SCHEDULE_LABEL, Runner, TriggerSchedule, TriggerScheduleSpec
from cloaca.store import Store, open_store
from cloaca.store.blocking import blocking, recorded
from cloaca.store.sql.rows import status_json

PROGRAM = """
import sys, threading, cloaca
with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def first(context):
        context["first"] = "once"
    @cloaca.task(dependencies=[first])
    def second(context):
        print("second", flush=True)
        threading.Event().wait()
with cloaca.DefaultRunner(sys.argv[1]) as runner:
    runner.execute("w", {"given": 1})
"""


@pytest.fixture
def left_behind(lasting: str) -> str:
    """A database whose program was killed inside the second task."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, lasting], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "second\n"
        program.send_signal(signal.SIGKILL)
        program.wait()
    return lasting


class Resumed:
    """The same workflow in this program."""

    def __init__(self) -> None:
        self.firsts: list[Any] = []
        self.seconds: list[Any] = []
        self.ran = threading.Semaphore(0)
        with cloaca.WorkflowBuilder("w"):

            @cloaca.task()
            def first(context: Any) -> None:
                self.firsts.append(context.to_dict())

            @cloaca.task(dependencies=[first])
            def second(context: Any) -> None:
                self.seconds.append(context.to_dict())
                self.ran.release()


async def runs_of(url: str) -> list[WorkflowRun]:
    store = await open_store(url)
    try:
        return list(await store.list(WorkflowRun))
    finally:
        await store.close()


async def test_a_run_of_a_killed_process_resumes_at_the_start_of_the_next_runner(left_behind: str) -> None:
    workflow = Resumed()
    with cloaca.DefaultRunner(left_behind):
        assert workflow.ran.acquire(timeout=60)

    (run,) = await runs_of(left_behind)
    assert (run.status.phase, run.status.attempt, run.status.failures) == (RunPhase.COMPLETED, 2, 1)
    assert run.status.context == {"given": 1, "first": "once"}
    assert workflow.firsts == []


async def test_of_two_runners_one_resumes_it(left_behind: str) -> None:
    workflow = Resumed()
    with cloaca.DefaultRunner(left_behind), cloaca.DefaultRunner(left_behind):
        assert workflow.ran.acquire(timeout=60)

    assert len(workflow.seconds) == 1
    (run,) = await runs_of(left_behind)
    assert run.status.attempt == 2


async def test_a_run_stays_for_a_program_that_has_its_workflow_and_the_log_says_so_once(
    left_behind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (run,) = await runs_of(left_behind)
    looked = threading.Semaphore(0)
    dead = Presence.dead

    async def counted(self: Presence) -> tuple[str, ...]:
        looked.release()
        return await dead(self)

    monkeypatch.setattr(Presence, "dead", counted)
    monkeypatch.setattr("cloaca.library.runner.BEAT", 0.01)
    with cloaca.DefaultRunner(left_behind):
        for _ in range(4):  # the third look begins when two have ended
            assert looked.acquire(timeout=60)
    told = (
        f"run {run.name} of a dead process waits for a program that has its workflow 'w': define it in one whose "
        "DefaultRunner opens this database, or delete the run"
    )
    assert caplog.messages == [told]
    workflow = Resumed()
    with cloaca.DefaultRunner(left_behind):
        assert workflow.ran.acquire(timeout=60)


async def test_nothing_is_resumed_where_recovery_is_off(left_behind: str) -> None:
    workflow = Resumed()
    with cloaca.DefaultRunner.with_config(left_behind, DefaultRunnerConfig(enable_recovery=False)) as runner:
        assert runner.execute("w", {}).status == "Completed"

    assert len(workflow.seconds) == 1
    assert {run.status.phase for run in await runs_of(left_behind)} == {RunPhase.RUNNING, RunPhase.COMPLETED}


async def test_runs_of_a_runner_that_lives_are_left_alone(lasting: str) -> None:
    begun, go_on, ran = threading.Event(), threading.Event(), []
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def slow(context: Any) -> None:
            ran.append(1)
            begun.set()
            assert go_on.wait(60)

    with cloaca.DefaultRunner(lasting) as runner:
        caller = threading.Thread(target=runner.execute, args=("w", {}))
        caller.start()
        assert begun.wait(60)
        with cloaca.DefaultRunner(lasting) as other:
            assert len(other.list_cron_schedules()) == 0
        go_on.set()
        caller.join()

    assert ran == [1]


async def test_a_stalled_owner_that_wakes_up_cannot_write(lasting: str) -> None:
    store = await open_store(lasting)
    try:
        run = await store.create(a_run(attempt=1, pod_name="runner-old"))
        stalled = StoreJournal(blocking(store, asyncio.get_running_loop()), recorded(run))
        taken = await store.write_status(claimed(run, "runner-new", DefaultRunnerConfig(), datetime.now(timezone.utc)))

        with pytest.raises(RunLost, match="was given to attempt 2"):
            stalled.write_text(status_json(run.with_status(phase=RunPhase.COMPLETED)))
        assert await store.get(WorkflowRun, run.name) == taken
    finally:
        await store.close()


STALLED = """
import os, signal, sys, cloaca
with cloaca.WorkflowBuilder("w"):
    @cloaca.task(retry_attempts=0)
    def first(context):
        context["first"] = os.getpid()
    @cloaca.task(dependencies=[first], retry_attempts=0)
    def second(context):
        print("second", flush=True)
        sys.stdin.readline()
        context["second"] = os.getpid()
with cloaca.DefaultRunner(sys.argv[1]) as runner:
    try:
        print(runner.execute("w").status, flush=True)
    except cloaca.CloacaError as error:
        print(type(error).__name__, error, flush=True)
"""


async def test_a_process_that_was_stopped_learns_that_another_one_has_its_run(
    lasting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two machines, which cannot see that the other's process is only stopped."""
    monkeypatch.setattr("cloaca.library.presence._machine", lambda: "another")
    monkeypatch.setattr("cloaca.library.presence.EXPIRY", 0.5)
    monkeypatch.setattr("cloaca.library.runner.BEAT", 0.3)
    with subprocess.Popen(
        [sys.executable, "-c", STALLED, lasting], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stalled:
        assert stalled.stdin is not None
        assert stalled.stdout is not None
        assert stalled.stdout.readline() == "second\n"
        stalled.send_signal(signal.SIGSTOP)
        workflow = Resumed()
        with cloaca.DefaultRunner(lasting):
            assert workflow.ran.acquire(timeout=60)
        before = await runs_of(lasting)

        stalled.send_signal(signal.SIGCONT)
        stalled.stdin.write("go on\n")
        stalled.stdin.close()
        said = stalled.stdout.read()
        assert stalled.wait(60) == 0

    assert said.startswith("RunLost run 'w-")
    assert "was ended by someone else: Completed" in said
    assert await runs_of(lasting) == before
    assert (before[0].status.attempt, workflow.firsts, len(workflow.seconds)) == (2, [], 1)
    assert "second" not in (before[0].status.context or {})


class Clock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


async def test_a_runner_without_a_sign_of_life_for_twenty_seconds_is_taken_for_dead(lasting: str) -> None:
    store, clock = await open_store(lasting), Clock()
    try:
        mine, other = Presence(store, clock), Presence(store)
        await mine.announce()
        await other.announce()

        assert await mine.dead() == ()
        clock.seconds += 19
        await other.announce()
        assert await mine.dead() == ()
        clock.seconds += 20
        assert await mine.dead() == ()
        clock.seconds += 0.1
        assert await mine.dead() == (other.name,)
        await other.announce()
        assert await mine.dead() == ()
    finally:
        await store.close()


async def test_runs_of_cron_schedules_wait_for_their_own_interval(lasting: str) -> None:
    store = await open_store(lasting)
    try:
        dead, mine = "runner-dead", Presence(store)
        await store.create(
            Runner(metadata=ObjectMeta(name=dead), spec=this_process().model_copy(update={"pid": 1, "started": "0"}))
        )
        by_hand = await store.create(a_run(attempt=1, pod_name=dead))
        by_cron = await store.create(a_run(name="run-2", cron=True, attempt=1, pod_name=dead))
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="only")(lambda context: None)
        resumed: list[str] = []

        async def look(*, cron_too: bool) -> list[str]:
            resumed.clear()
            await recover(
                store,
                mine,
                DefaultRunnerConfig(),
                active_registry().workflows,
                lambda _, run: resumed.append(run.name),
                anything,
                lambda: True,
                set(),
                cron_too=cron_too,
            )
            return list(resumed)

        assert await look(cron_too=False) == [by_hand.name]
        assert await mine.dead() == (dead,)
        assert await look(cron_too=True) == [by_cron.name]
        assert await mine.dead() == ()
    finally:
        await store.close()


class Interrupted:
    """A store, in which ``interrupt`` happens right before the ``number``-th time that a run's status is written."""

    def __init__(self, store: Store, number: int, interrupt: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._left = number
        self._interrupt = interrupt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write_status(self, obj: Any) -> Any:
        if isinstance(obj, WorkflowRun):
            self._left -= 1
            if self._left == 0:
                await self._interrupt()
        return await self._store.write_status(obj)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("allow_concurrent", [False, True], ids=["one at a time", "several at once"])
async def test_of_two_that_recover_at_once_one_takes_all_runs_of_a_trigger_that_forbids_overlap(
    lasting: str, number: int, allow_concurrent: bool
) -> None:
    store, dead = await open_store(lasting), "runner-dead"
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="w", name="inbox", poll_interval="1h", allow_concurrent=allow_concurrent)(lambda: None)
    try:
        gone = this_process().model_copy(update={"pid": 1, "started": "0"})
        await store.create(Runner(metadata=ObjectMeta(name=dead), spec=gone))
        for name in ("fire-1", "fire-2", "fire-3"):
            await store.create(a_run(name=name, trigger="inbox", attempt=1, pod_name=dead))

        async def look(through: Store) -> list[str]:
            presence, took = Presence(store), list[str]()
            await presence.announce()
            with ThreadPoolExecutor(1) as pool:
                triggers = TriggerSchedules(store, active_registry(), presence, pool, never, never, recovers=True)
                await recover(
                    through,
                    presence,
                    DefaultRunnerConfig(),
                    active_registry().workflows,
                    lambda _, run: took.append(run.name),
                    triggers.may_resume,
                    lambda: True,
                    set(),
                    cron_too=True,
                )
            return took

        others: list[str] = []

        async def other_looks() -> None:
            others.extend(await look(store))

        mine = await look(cast(Store, Interrupted(store, number, other_looks)))

        assert sorted(mine + others) == ["fire-1", "fire-2", "fire-3"]
        assert allow_concurrent or (mine, others) == (["fire-1", "fire-2", "fire-3"], [])
        assert await Presence(store).dead() == ()
    finally:
        await store.close()


async def test_a_run_that_a_trigger_fired_stays_for_a_program_that_has_the_trigger(lasting: str) -> None:
    store, resumed = await open_store(lasting), threading.Event()
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: resumed.set())
    try:
        gone = this_process().model_copy(update={"pid": 1, "started": "0"})
        await store.create(Runner(metadata=ObjectMeta(name="runner-dead"), spec=gone))
        await store.create(a_run(trigger="inbox", attempt=1, pod_name="runner-dead"))
    finally:
        await store.close()
    with cloaca.DefaultRunner(lasting):
        pass
    assert not resumed.is_set()

    cloaca.trigger(workflow="w", name="inbox", poll_interval="1h")(cloaca.TriggerResult.skip)
    with cloaca.DefaultRunner(lasting):
        assert resumed.wait(60)


async def test_where_recovery_is_off_what_a_dead_process_left_holds_no_trigger_up(lasting: str) -> None:
    fired = threading.Event()
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: fired.set())
    cloaca.trigger(workflow="w", name="inbox", poll_interval="100ms")(cloaca.TriggerResult.fire)
    gone = this_process().model_copy(update={"pid": 1, "started": "0"})
    store = await open_store(lasting)
    try:
        await store.create(Runner(metadata=ObjectMeta(name="runner-dead"), spec=gone))
        await store.create(a_run(trigger="inbox", attempt=1, pod_name="runner-dead"))
        row = TriggerSchedule(
            metadata=ObjectMeta(name="inbox"), spec=TriggerScheduleSpec(trigger="inbox", changed_at=NOW)
        )
        await store.create(row.with_status(holder="runner-dead", last_run="run-1"))
        config = DefaultRunnerConfig(enable_recovery=False)
        with cloaca.DefaultRunner.with_config(lasting, config):
            assert fired.wait(60)
        left = await store.get(WorkflowRun, "run-1")
    finally:
        await store.close()
    assert left is not None
    assert left.status.phase is RunPhase.RUNNING


async def anything(_: WorkflowRun) -> bool:
    return True


async def never(*_: Any) -> Any:
    pytest.fail("nothing is fired here")


def a_run(
    *, name: str = "run-1", cron: bool = False, trigger: str | None = None, age: timedelta = timedelta(0), **status: Any
) -> WorkflowRun:
    labels = {**({SCHEDULE_LABEL: "s"} if cron else {}), **run_labels(trigger=trigger)}
    made = NOW - age
    return WorkflowRun(
        metadata=ObjectMeta(name=name, labels=labels, creation_timestamp=made),
        spec=RunSpec(workflow="w"),
        status=RunStatus(phase=RunPhase.RUNNING, **status),
    )


NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (a_run(failures=2), None),
        (a_run(failures=3), "its process died 4 times: find out what ends it, then execute the workflow again"),
        (a_run(cron=True, failures=1), None),
        (a_run(cron=True, failures=2), "its process died 3 times"),
        (a_run(cron=True, age=timedelta(seconds=99)), None),
        (a_run(cron=True, age=timedelta(seconds=101)), "it is older than the 100 s of recovery"),
        (a_run(age=timedelta(days=9)), None),
    ],
    ids=["again", "too often", "cron, again", "cron, too often", "young", "too old", "only cron is too old"],
)
def test_what_is_resumed_and_what_is_given_up(run: WorkflowRun, message: str | None) -> None:
    config = DefaultRunnerConfig(cron_max_recovery_attempts=2, cron_max_recovery_age_seconds=100)
    taken = claimed(run, "runner-new", config, NOW).status

    assert (taken.attempt, taken.pod_name, taken.failures) == (1, "runner-new", run.status.failures + 1)
    assert taken.phase is (RunPhase.RUNNING if message is None else RunPhase.FAILED)
    assert message is None or message in (taken.message or "")


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="only Linux tells which process is which")
def test_a_process_is_known_to_be_gone_by_its_number_and_start() -> None:
    mine = this_process()
    with subprocess.Popen(["sleep", "60"]) as other:
        theirs = mine.model_copy(update={"pid": other.pid})
        other.kill()
        other.wait()

    assert not is_gone(mine)
    assert is_gone(mine.model_copy(update={"started": "1"}))
    assert is_gone(theirs)
    assert not is_gone(theirs.model_copy(update={"machine": "another"}))
    assert not is_gone(mine.model_copy(update={"pid": os.getpid(), "machine": ""}))
