"""What library mode costs: import, one execute, chains, fans, many threads. Prints figures; ``main`` returns them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloaca

STARTS = 20
RUNS = 500
LARGE = 10
THREADS = 500


def define() -> None:
    """The workflows that are measured."""
    with cloaca.WorkflowBuilder("bench_two"):

        @cloaca.task(id="first")
        def first(context: Any) -> Any:
            context.set("n", 1)
            return context

        @cloaca.task(id="second", dependencies=["first"])
        def second(context: Any) -> Any:
            context.set("n", context.get("n") + 1)
            return context

    with cloaca.WorkflowBuilder("bench_chain"):
        for number in range(100):
            cloaca.task(id=f"t{number}", dependencies=[f"t{number - 1}"] if number else [])(lambda context: context)
    with cloaca.WorkflowBuilder("bench_fan"):
        cloaca.task(id="root")(lambda context: context)
        for number in range(100):
            cloaca.task(id=f"t{number}", dependencies=["root"])(lambda context: context)
        cloaca.task(id="end", dependencies=[f"t{number}" for number in range(100)])(lambda context: context)


def start_ms(statement: str) -> float:
    """Median time of a Python process that runs ``statement``; its bytecode is compiled once, before."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def start() -> float:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
            return (time.perf_counter() - began) * 1000

        start()
        return statistics.median(start() for _ in range(STARTS))


def times_ms(call: Callable[[], Any], count: int) -> list[float]:
    """How long each of ``count`` calls took, sorted, after a few that do not count."""
    for _ in range(max(2, count // 10)):
        call()
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)


def executed(runner: cloaca.DefaultRunner, workflow: str) -> None:
    """One run, which must complete."""
    result = runner.execute(workflow, cloaca.Context({}))
    if result.status != "Completed":
        raise RuntimeError(f"{workflow}: {result.error_message}")


def runs_per_second(runner: cloaca.DefaultRunner) -> float:
    """500 threads call execute once each, all at the same time."""
    with ThreadPoolExecutor(THREADS) as callers:
        list(callers.map(lambda _: time.sleep(0.05), range(THREADS)))  # every thread is there
        began = time.perf_counter()
        list(callers.map(lambda _: executed(runner, "bench_two"), range(THREADS)))
        return THREADS / (time.perf_counter() - began)


def main() -> dict[str, float]:
    """Measure, print a table, return the figures."""
    define()
    figures = {"import_ms_over_bare": start_ms("import cloaca") - start_ms("pass")}
    with tempfile.TemporaryDirectory() as folder:
        for where, url in (("file", str(Path(folder) / "bench.db")), ("memory", ":memory:")):
            with cloaca.DefaultRunner(url) as runner:
                taken = times_ms(lambda runner=runner: executed(runner, "bench_two"), RUNS)
                figures[f"execute_{where}_p50_ms"] = statistics.median(taken)
                figures[f"execute_{where}_p99_ms"] = taken[int(len(taken) * 0.99)]
                for key, workflow in (("chain_100", "bench_chain"), ("fan_1_100_1", "bench_fan")):
                    taken = times_ms(lambda runner=runner, workflow=workflow: executed(runner, workflow), LARGE)
                    figures[f"{key}_{where}_ms"] = statistics.median(taken)
                figures[f"threads_500_{where}_runs_per_s"] = runs_per_second(runner)
    for key, value in figures.items():
        print(f"{key:32} {value:10.3f}")
    return figures


if __name__ == "__main__":
    main()
