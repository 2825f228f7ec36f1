"""What library mode costs, in the common API of every ``cloaca``: import, execute, chain, fan, threads, memory, resume.

``main`` returns the figures; run as a program it prints them, and as JSON with ``--json``. Nothing here knows whose
``cloaca`` it measures: ``peer.py`` runs this very file with another interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
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
ROUNDS = 5
RUNS = 500
LARGE = 10
THREADS = 500
SOAK = 10_000
WARM = 1_000  # runs after which the memory of a soak is looked at for the first time
PATIENCE = 90.0  # seconds for a killed program's run to go on

FILE = "sqlite://{name}?mode=rwc&_journal_mode=WAL&_synchronous=NORMAL&_busy_timeout=5000"
"""In the working folder: a relative path is the one that every implementation reads alike."""

LEFT_BEHIND = """
import os, sys, time, cloaca

with cloaca.WorkflowBuilder("bench_left"):
    @cloaca.task(id="first")
    def first(context):
        number = sum(name.startswith("started-") for name in os.listdir("."))
        with open(f"started-{number}", "w"):
            pass
        if number == 0:
            time.sleep(600)
        return context

runner = cloaca.DefaultRunner(sys.argv[1])
if sys.argv[2] == "execute":
    runner.execute("bench_left", cloaca.Context({}))
else:
    time.sleep(600)
"""


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


def trivial_process_mib() -> float:
    """Resident memory of a program that only imports."""
    said = subprocess.run(
        [sys.executable, "-c", "import cloaca; print(open('/proc/self/status').read())"],
        check=True,
        capture_output=True,
        text=True,
    )
    return _resident_mib(said.stdout)


def resident_mib() -> float:
    """Resident memory of this program."""
    return _resident_mib(Path("/proc/self/status").read_text())


def _resident_mib(status: str) -> float:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


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


def three_commits_ms(runs: int) -> float:
    """What the least that a run can record costs with sqlite3 alone: tells how fast the machine is just now."""
    connection = sqlite3.connect("bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, status TEXT)")

    def three() -> None:
        row = connection.execute("INSERT INTO runs (status) VALUES (?)", ("a" * 300,)).lastrowid
        for letter in "bc":
            connection.execute("UPDATE runs SET status = ? WHERE id = ?", (letter * 300, row))

    try:
        return statistics.median(times_ms(three, runs))
    finally:
        connection.close()


def growth_mib(runner: cloaca.DefaultRunner, runs: int) -> float:
    """By how much the program grows with each thousand of ``runs``."""
    for _ in range(min(WARM, runs)):
        executed(runner, "bench_two")
    before = resident_mib()
    for _ in range(runs):
        executed(runner, "bench_two")
    return (resident_mib() - before) / runs * 1000


def resumed_s(patience: float) -> float | None:
    """From the restart of a program that was killed with SIGKILL to its task running again; None: it did not."""
    command = [sys.executable, "-c", LEFT_BEHIND, FILE.format(name="left.db")]
    with subprocess.Popen([*command, "execute"]) as first:
        while not Path("started-0").exists():
            time.sleep(0.002)
        first.send_signal(signal.SIGKILL)
    began = time.perf_counter()
    with subprocess.Popen([*command, "wait"]) as second:
        try:
            while time.perf_counter() - began < patience:
                if Path("started-1").exists():
                    return time.perf_counter() - began
                time.sleep(0.002)
            return None
        finally:
            second.kill()


def measure(*, rounds: int, runs: int, large: int, soak: int, patience: float) -> dict[str, float]:
    """Every figure, by name; one that could not be had is left out. In the working folder."""
    define()
    figures = {
        "bare_three_commits_ms": min(three_commits_ms(runs) for _ in range(rounds)),
        "import_ms_over_bare": start_ms("import cloaca") - start_ms("pass"),
        "trivial_process_mib": trivial_process_mib(),
    }
    for where, url in (("file", FILE.format(name="bench.db")), ("memory", ":memory:")):
        with cloaca.DefaultRunner(url) as runner:
            figures |= quietest([one_round(runner, where, runs=runs, large=large) for _ in range(rounds)])
            if where == "file":
                figures["growth_mib_per_1000_runs"] = growth_mib(runner, soak)
    resumed = resumed_s(patience)
    if resumed is not None:
        figures["resumed_after_kill_s"] = resumed
    return figures


def one_round(runner: cloaca.DefaultRunner, where: str, *, runs: int, large: int) -> dict[str, float]:
    """What executions cost just now."""
    taken = times_ms(lambda: executed(runner, "bench_two"), runs)
    figures = {
        f"execute_{where}_p50_ms": statistics.median(taken),
        f"execute_{where}_p99_ms": taken[int(len(taken) * 0.99)],
    }
    for key, workflow in (("chain_100", "bench_chain"), ("fan_1_100_1", "bench_fan")):
        taken = times_ms(lambda workflow=workflow: executed(runner, workflow), large)
        figures[f"{key}_{where}_ms"] = statistics.median(taken)
    figures[f"threads_500_{where}_runs_per_s"] = runs_per_second(runner)
    return figures


def quietest(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Each figure's best, which others on the machine disturbed least, and its median where there are several."""
    figures = {}
    for key in rounds[0]:
        of_all = [figures_of_one[key] for figures_of_one in rounds]
        figures[key] = max(of_all) if key.endswith("_per_s") else min(of_all)
        if len(rounds) > 1:
            figures[f"{key}_median"] = statistics.median(of_all)
    return figures


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Measure, print a table, return the figures."""
    parser = argparse.ArgumentParser(description="measure the cloaca of this interpreter")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often, of which the quietest counts")
    parser.add_argument("--runs", type=int, default=RUNS, help="executions of two tasks")
    parser.add_argument("--large", type=int, default=LARGE, help="executions of a chain and of a fan")
    parser.add_argument("--soak", type=int, default=SOAK, help="executions over which memory is watched")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for a killed run to go on")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    chosen = parser.parse_args([] if arguments is None else arguments)
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="cloaca-bench-") as folder:
        os.chdir(folder)
        try:
            figures = measure(
                rounds=chosen.rounds,
                runs=chosen.runs,
                large=chosen.large,
                soak=chosen.soak,
                patience=chosen.patience,
            )
        finally:
            os.chdir(here)
    if chosen.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:32} {value:10.3f}")
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
