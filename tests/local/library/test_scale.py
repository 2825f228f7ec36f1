"""Many of everything in one process: callers, tasks, runs. What is asserted is what happened, never how fast."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cloaca

CALLERS = 1_000
PATIENCE = 60.0  # seconds after which what does not happen is a failure


def test_a_thousand_callers_at_once_each_get_their_own_result(url: str) -> None:
    calls: Counter[str] = Counter()  # a task is called once for each run: counted under the lock
    lock = threading.Lock()
    with cloaca.WorkflowBuilder("two"):

        @cloaca.task()
        def double(context: Any) -> None:
            with lock:
                calls["double"] += 1
            context["n"] *= 2

        @cloaca.task(dependencies=[double])
        async def add_one(context: Any) -> None:
            calls["add_one"] += 1
            context["n"] += 1

    everybody = threading.Barrier(CALLERS)

    def call(number: int) -> cloaca.WorkflowResult:
        everybody.wait(PATIENCE)
        return runner.execute("two", {"n": number})

    with cloaca.DefaultRunner(url) as runner, ThreadPoolExecutor(CALLERS) as callers:
        results = list(callers.map(call, range(CALLERS)))

    assert [result.final_context["n"] for result in results] == [2 * number + 1 for number in range(CALLERS)]
    assert {result.status for result in results} == {"Completed"}
    assert len({result.execution_id for result in results}) == CALLERS
    assert calls == {"double": CALLERS, "add_one": CALLERS}


def test_a_fan_of_a_hundred_sees_the_root_and_is_seen_whole_by_the_end(url: str) -> None:
    with cloaca.WorkflowBuilder("fan"):

        @cloaca.task()
        def root(context: Any) -> None:
            context["seen"] = "root"

        for number in range(100):

            def part(context: Any, number: int = number) -> None:
                assert context["seen"] == "root"
                context[f"part_{number}"] = number

            cloaca.task(id=f"part_{number}", dependencies=["root"])(part)

        @cloaca.task(dependencies=[f"part_{number}" for number in range(100)])
        def end(context: Any) -> None:
            context["sum"] = sum(context[f"part_{number}"] for number in range(100))

    with cloaca.DefaultRunner(url) as runner:
        result = runner.execute("fan")

    assert (result.status, result.error_message) == ("Completed", None)
    assert result.final_context["sum"] == sum(range(100))


def test_a_chain_of_a_hundred_runs_in_its_order(url: str) -> None:
    order: list[int] = []
    with cloaca.WorkflowBuilder("chain"):
        for number in range(100):
            before = [f"link_{number - 1}"] if number else []
            cloaca.task(id=f"link_{number}", dependencies=before)(lambda _, number=number: order.append(number))

    with cloaca.DefaultRunner(url) as runner:
        result = runner.execute("chain")

    assert (result.status, order) == ("Completed", list(range(100)))


def test_a_graph_of_a_thousand_tasks_runs_each_once_after_what_it_needs(url: str) -> None:
    ended: list[int] = []
    early: list[int] = []
    needs = {number: [one for one in (number // 2, number - 31) if 0 <= one < number] for number in range(1_000)}
    with cloaca.WorkflowBuilder("graph"):
        for number, needed in needs.items():

            def work(_: Any, number: int = number, needed: tuple[int, ...] = tuple(needed)) -> None:
                if not set(needed) <= set(ended):
                    early.append(number)
                ended.append(number)

            cloaca.task(id=f"t{number}", dependencies=[f"t{one}" for one in dict.fromkeys(needed)])(work)

    with cloaca.DefaultRunner(url) as runner:
        result = runner.execute("graph")

    assert (result.status, result.error_message, early) == ("Completed", None, [])
    assert sorted(ended) == list(range(1_000))


def test_no_more_tasks_work_at_once_than_the_configuration_says(url: str) -> None:
    lock = threading.Lock()
    working = most = 0
    full = threading.Event()
    with cloaca.WorkflowBuilder("wide"):
        for number in range(40):

            def work(_: Any) -> None:
                nonlocal working, most
                with lock:
                    working += 1
                    most = max(most, working)
                    if working == 4:
                        full.set()
                assert full.wait(PATIENCE)  # nobody leaves before the limit was reached
                with lock:
                    working -= 1

            cloaca.task(id=f"t{number}")(work)

    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=4)
    with cloaca.DefaultRunner.with_config(url, config) as runner:
        assert runner.execute("wide").status == "Completed"

    assert (most, working) == (4, 0)


def test_a_task_that_blocks_does_not_hold_up_async_tasks(url: str) -> None:
    asynchronous = threading.Event()
    threads: set[str] = set()
    with cloaca.WorkflowBuilder("blocking"):

        @cloaca.task()
        def blocks(context: Any) -> None:
            context["others_went_on"] = asynchronous.wait(PATIENCE)  # for ever, if the async tasks waited for it

    with cloaca.WorkflowBuilder("asynchronous"):

        @cloaca.task()
        async def first(_: Any) -> None:
            threads.add(threading.current_thread().name)

        @cloaca.task(dependencies=[first])
        async def second(_: Any) -> None:
            threads.add(threading.current_thread().name)

    with cloaca.DefaultRunner(url) as runner, ThreadPoolExecutor(1) as caller:
        blocked = caller.submit(runner.execute, "blocking")
        assert [runner.execute("asynchronous").status for _ in range(20)] == ["Completed"] * 20
        asynchronous.set()
        result = blocked.result(PATIENCE)

    assert (result.status, result.final_context["others_went_on"]) == ("Completed", True)
    assert len(threads) == 1  # every async task is on the one loop


@pytest.mark.parametrize("runs", [600])
def test_a_runner_keeps_nothing_of_the_runs_that_ended(tmp_path: Path, runs: int) -> None:
    with cloaca.WorkflowBuilder("one"):

        @cloaca.task()
        def work(context: Any) -> None:
            context["payload"] = "x" * 10_000  # what was kept of each run would be five times the bound

    with cloaca.DefaultRunner(str(tmp_path / "runs.db")) as runner:
        for _ in range(100):
            runner.execute("one")
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(runs):
                runner.execute("one")
            gc.collect()
            kept = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    assert kept < runs * 2_000, f"{kept / runs:.0f} bytes a run are kept"
