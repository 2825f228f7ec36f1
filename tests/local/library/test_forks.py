"""Runners and forked processes (gunicorn --preload, Celery, multiprocessing): nothing hangs, nobody is harmed."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import cloaca
from cloaca.errors import RunnerClosed, StoreUnavailable
from cloaca.store.sql import sqlite

DEADLINE = 60  # seconds; a child that hangs is killed


def forked(work: Callable[[], None], *, finalize: bool = False) -> Callable[[], None]:
    """Run ``work`` in a forked child; what is returned waits for its end, and raises unless it ended well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(DEADLINE)  # ends it
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            if finalize and code == 0:
                os.execv(sys.executable, [sys.executable, "-c", ""])  # closes what is to be closed on exec
            os._exit(code)

    def ended() -> None:
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    return ended


def define() -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only", retry_attempts=0)(lambda context: context.set("pid", os.getpid()))


def test_in_a_forked_child_every_call_of_a_runner_says_that_it_belongs_to_the_parent(url: str) -> None:
    define()
    runner = cloaca.DefaultRunner(url)
    parent = os.getpid()
    calls: list[Callable[[], object]] = [
        lambda: runner.execute("w"),
        runner.list_cron_schedules,
        runner.list_trigger_schedules,
        lambda: runner.register_cron_workflow("w", "0 2 * * *", None),
    ]

    def child() -> None:
        for call in calls:
            with pytest.raises(
                RunnerClosed, match=f"belongs to process {parent}.*Make a DefaultRunner in this process"
            ):
                call()
        cloaca.trigger(workflow="w", name="new", poll_interval="1h")(cloaca.TriggerResult.skip)
        runner.shutdown()
        runner.__exit__(None, None, None)
        assert repr(runner) == f"DefaultRunner(of process {parent})"

    forked(child)()
    assert runner.execute("w").final_context["pid"] == parent
    assert repr(runner) == "DefaultRunner(open)"
    runner.shutdown()


def test_children_that_are_forked_under_load_have_runners_of_their_own_and_no_run_is_lost(lasting: str) -> None:
    define()
    runner = cloaca.DefaultRunner(lasting)
    stop = threading.Event()
    completed: list[str] = []

    def busy() -> None:
        while not stop.is_set():
            completed.append(runner.execute("w").execution_id)

    def child() -> None:
        with cloaca.DefaultRunner(lasting) as mine:
            for _ in range(10):
                assert mine.execute("w").final_context["pid"] == os.getpid()

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        children = [forked(child) for _ in range(6)]
        for ended in children:
            ended()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    runner.shutdown()
    assert completed
    assert _completed_runs(lasting) == len(completed) + 60


def _completed_runs(url: str) -> int:
    import asyncio

    from cloaca.resources.run import WorkflowRun
    from cloaca.store import open_store

    async def count() -> int:
        store = await open_store(url)
        try:
            return sum(run.status.phase.value == "Completed" for run in await store.list(WorkflowRun))
        finally:
            await store.close()

    return asyncio.run(count())


def test_what_a_child_wrote_stays_when_its_parent_closes_the_file_first(tmp_path: Path) -> None:
    """SQLite would take the child's locks for held, and the parent's close would remove the log under it."""
    define()
    path = str(tmp_path / "runs.db")
    runner = cloaca.DefaultRunner(path)
    runner.execute("w")
    opened, closed = os.pipe(), os.pipe()

    def child() -> None:
        mine = cloaca.DefaultRunner(path)
        mine.execute("w")
        os.write(opened[1], b".")
        os.read(closed[0], 1)
        mine.execute("w")
        mine.shutdown()

    ended = forked(child)
    os.read(opened[0], 1)
    runner.shutdown()
    sqlite3.connect(path).close()  # a program that knows nothing of us is the last one, as far as it can see
    os.write(closed[1], b".")
    ended()
    for descriptor in (*opened, *closed):
        os.close(descriptor)
    assert _completed_runs(path) == 3


def test_a_fork_from_within_a_task_harms_nobody(url: str) -> None:
    with cloaca.WorkflowBuilder("forks"):

        @cloaca.task(retry_attempts=0)
        def in_a_thread(context: object) -> None:
            forked(lambda: None)()

        @cloaca.task(retry_attempts=0)
        async def in_the_loop(context: object) -> None:
            forked(lambda: None)()

    define()
    with cloaca.DefaultRunner(url) as runner:
        assert runner.execute("forks").error_message is None
        assert runner.execute("w").status == "Completed"


def test_a_fork_while_a_write_does_not_end_leaves_the_parent_alone_and_the_child_refuses_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LONGEST_WAIT", 0.01)
    define()
    path = str(tmp_path / "runs.db")
    runner = cloaca.DefaultRunner(path)
    database = runner._store._database  # type: ignore[attr-defined]

    def child() -> None:
        with pytest.raises(StoreUnavailable, match="at the moment when this process was forked"):
            cloaca.DefaultRunner(path)
        cloaca.DefaultRunner(str(tmp_path / "other.db")).shutdown()

    with database._transactions.lock:
        ended = forked(child)
    ended()
    assert runner.execute("w").status == "Completed"
    runner.shutdown()


def test_a_database_that_is_gone_when_the_parent_goes_on_is_not_made_anew(tmp_path: Path) -> None:
    define()
    path = tmp_path / "runs.db"
    runner = cloaca.DefaultRunner(str(path))
    moved = tmp_path / "moved.db"
    database = runner._store._database  # type: ignore[attr-defined]
    database.suspend()
    path.rename(moved)
    database.resume()
    with pytest.raises(StoreUnavailable, match="is gone or was replaced"):
        runner.execute("w")
    assert not path.exists()
    moved.rename(path)
    assert runner.execute("w").status == "Completed"
    runner.shutdown()


def test_the_heartbeat_and_the_schedules_of_the_parent_go_on_after_forks(lasting: str) -> None:
    ticked = threading.Event()
    with cloaca.WorkflowBuilder("tick"):
        cloaca.task(id="tick", retry_attempts=0)(lambda context: ticked.set())
    with cloaca.DefaultRunner(lasting) as runner:
        runner.register_cron_workflow("tick", "* * * * * *", "UTC")
        assert ticked.wait(DEADLINE)
        for _ in range(3):
            forked(lambda: None, finalize=True)()
        ticked.clear()
        began = time.monotonic()
        assert ticked.wait(DEADLINE), f"no tick in {time.monotonic() - began:.0f} s"
