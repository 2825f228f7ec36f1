"""What the local daemon costs and how fast it is: deploy to first poll, fire to tasks, memory and time at rest."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builders import archive, declared  # the tests' folder is put on the path above
from daemon_process import Daemon

from cloaca.resources import Trigger, WorkflowRun
from cloaca.store import open_store

FIRES = 60
DEPLOYS = 7
FURTHER = 5
REST = 20.0  # seconds

CODE = """
import os, time
import cloaca

with cloaca.WorkflowBuilder("{workflow}") as builder:
    @cloaca.task(id="first")
    def first(context):
        context.set("first_started", time.time())

    @cloaca.task(id="second", dependencies=["first"])
    def second(context):
        context.set("second_ended", time.time())

@cloaca.trigger(name="watch", poll_interval="{interval}", allow_concurrent=True)
def watch():
    mark = os.environ["MARKS"] + "/{workflow}.polled"
    if not os.path.exists(mark):
        with open(mark, "w") as file:
            file.write(str(time.time()))
    if {fires}:
        return cloaca.TriggerResult.fire({{"fired": time.time()}})
    return cloaca.TriggerResult.skip()
"""


def package(name: str, *, fires: bool, interval: str, version: str = "1.0.0") -> bytes:
    """An archive of two tasks and one trigger."""
    module = name.replace("-", "_")
    return archive(
        CODE.format(workflow=module, fires=fires, interval=interval),
        name=name,
        version=version,
        tasks=[
            {"id": "first", "function": f"{module}:first", "dependencies": []},
            {"id": "second", "function": f"{module}:second", "dependencies": ["first"]},
        ],
        triggers=[declared("watch", module, poll_interval=interval, allow_concurrent=True)],
    )


def processes(mark: str) -> list[int]:
    """Process ids of everything that the daemon started, itself included."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def memory(pids: list[int]) -> float:
    """MB of proportional set size."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1000


def seconds_of_cpu(pids: list[int]) -> float:
    """Of all threads, user and system."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def deploys(daemon: Daemon, marks: Path) -> list[float]:
    """Milliseconds from the copy of an archive to the first call of its trigger."""
    took = []
    for number in range(DEPLOYS):
        name = f"deploy-{number}"
        data = package(name, fires=False, interval="5s")
        polled = marks / f"{name.replace('-', '_')}.polled"
        before = time.time()
        daemon.deploy(data, f"{name}-1.0.0.cloacina")
        while not (polled.exists() and polled.read_text()):
            await asyncio.sleep(0.002)
        took.append((float(polled.read_text()) - before) * 1000)
        (daemon.home.packages / f"{name}-1.0.0.cloacina").unlink()
        await asyncio.sleep(1.0)
    return took


async def fires(daemon: Daemon) -> tuple[list[float], list[float]]:
    """Milliseconds from a fire to the start of the first task, and to the end of the second."""
    daemon.deploy(package("fires", fires=True, interval="500ms"), "fires-1.0.0.cloacina")
    store = await open_store(str(daemon.home.database))
    seen: dict[str, dict[str, Any]] = {}  # by name: the daemon keeps the last three completed runs only
    try:
        while len(seen) < FIRES:
            await asyncio.sleep(0.2)
            for run in await store.list(WorkflowRun):
                if run.status.context is not None:
                    seen[run.name] = run.status.context
    finally:
        await store.close()
    (daemon.home.packages / "fires-1.0.0.cloacina").unlink()
    contexts = list(seen.values())[5:]
    first = [(context["first_started"] - context["fired"]) * 1000 for context in contexts]
    second = [(context["second_ended"] - context["fired"]) * 1000 for context in contexts]
    return first, second


async def rest(daemon: Daemon, mark: str) -> dict[str, float]:
    """Memory and time with one package, then memory with more."""
    await asyncio.sleep(2.0)
    daemon.deploy(package("rest", fires=False, interval="5s"), "rest-1.0.0.cloacina")
    await settled(daemon, 1)
    pids = processes(mark)
    one = memory(pids)
    before = seconds_of_cpu(pids)
    await asyncio.sleep(REST)
    busy = (seconds_of_cpu(pids) - before) / REST * 100
    for number in range(FURTHER):
        daemon.deploy(package(f"more-{number}", fires=False, interval="5s"), f"more-{number}-1.0.0.cloacina")
    await settled(daemon, 1 + FURTHER)
    more = (memory(processes(mark)) - one) / FURTHER
    return {"at_rest_one_package_pss_mb": one, "each_further_package_pss_mb": more, "at_rest_cpu_percent": busy}


async def settled(daemon: Daemon, triggers: int) -> None:
    """Return a while after so many triggers were polled."""
    store = await open_store(str(daemon.home.database))
    try:
        while sum(bool(trigger.status.ticks) for trigger in await store.list(Trigger)) < triggers:
            await asyncio.sleep(0.1)
    finally:
        await store.close()
    await asyncio.sleep(3.0)


async def measure() -> dict[str, float]:
    """Every figure, by name."""
    with tempfile.TemporaryDirectory(prefix="cloaca-bench-") as folder:
        marks = Path(folder) / "marks"
        marks.mkdir()
        daemon = Daemon(Path(folder) / "home")
        daemon.environment = {"MARKS": str(marks)}
        daemon.start()
        try:
            await daemon.eventually("the daemon", lambda store: asyncio.sleep(0.5, True))
            deployed = await deploys(daemon, marks)
            first, second = await fires(daemon)
            return {
                "deploy_to_first_poll_ms": statistics.median(deployed),
                "fire_to_first_task_ms": statistics.median(first),
                "fire_to_second_task_ended_ms": statistics.median(second),
                **await rest(daemon, f"MARKS={marks}"),
            }
        finally:
            daemon.stop()


def told(measured: Coroutine[Any, Any, dict[str, float]]) -> dict[str, float]:
    """The figures that it comes to, printed as well."""
    figures = asyncio.run(measured)
    for name, value in figures.items():
        print(f"{name:36} {value:8.1f}")
    return figures


def main() -> dict[str, float]:
    """Measure and print."""
    return told(measure())


if __name__ == "__main__":
    main()
