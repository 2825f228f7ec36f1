"""What the store costs: one write, one read, a list, another process's write, 500 threads. ``main`` returns figures."""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from cloaca.resources import ObjectMeta, RunSpec, TaskPhase, TaskStatus, WorkflowRun
from cloaca.store import Store, open_store

CALLS = 2000
LISTED = 1000
LISTS = 20
HEARD = 100
THREADS = 500
WRITES_OF_A_THREAD = 10
REST_SECONDS = 5.0


def runs(prefix: str) -> Iterator[WorkflowRun]:
    """Small runs, each under its own name."""
    for number in count():
        yield WorkflowRun(
            metadata=ObjectMeta(name=f"{prefix}-{number}"),
            spec=RunSpec(workflow="bench", context={"file": "a.parquet", "n": number}),
        )


async def times_us(calls: int, call: Callable[[], Awaitable[object]]) -> list[float]:
    """How long each call took, sorted."""
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - began) * 1e6)
    return sorted(taken)


async def one_by_one(store: Store, where: str) -> dict[str, float]:
    """Calls of one caller, one after the other."""
    new = iter([run for run, _ in zip(runs(where), range(CALLS), strict=False)])
    created = await times_us(CALLS, lambda: store.create(next(new)))
    seen = await store.get(WorkflowRun, f"{where}-0")
    assert seen is not None
    statuses = iter(
        [
            seen.status.model_copy(
                update={
                    "attempt": number,
                    "tasks": (TaskStatus(id="first", phase=TaskPhase.COMPLETED), TaskStatus(id="second")),
                    "checkpoint": {"first": {"n": number}},
                }
            )
            for number in range(1, CALLS + 1)
        ]
    )

    async def write() -> None:
        nonlocal seen
        assert seen is not None
        seen = await store.write_status(seen.model_copy(update={"status": next(statuses)}))

    statuses_written = await times_us(CALLS, write)
    got = await times_us(CALLS, lambda: store.get(WorkflowRun, f"{where}-1"))
    for run, _ in zip(runs("listed"), range(LISTED), strict=False):
        await store.create(run.with_metadata(namespace="listed", labels={"bench": "yes"}))
    listed = await times_us(LISTS, lambda: store.list(WorkflowRun, "listed"))
    unmatched = await times_us(LISTS, lambda: store.list(WorkflowRun, labels={"bench": "no"}))
    return {
        f"store_{where}_create_p50_us": statistics.median(created),
        f"store_{where}_create_p99_us": created[int(CALLS * 0.99)],
        f"store_{where}_write_status_p50_us": statistics.median(statuses_written),
        f"store_{where}_write_status_p99_us": statuses_written[int(CALLS * 0.99)],
        f"store_{where}_get_p50_us": statistics.median(got),
        f"store_{where}_list_{LISTED}_ms": statistics.median(listed) / 1000,
        f"store_{where}_list_none_by_label_us": statistics.median(unmatched),
    }


def threads_per_second(store: Store) -> float:
    """Writes a second where 500 threads, each with its own event loop, create at once."""

    def work(thread: int) -> None:
        async def create() -> None:
            for run, _ in zip(runs(f"thread-{thread}"), range(WRITES_OF_A_THREAD), strict=False):
                await store.create(run)

        asyncio.run(create())

    with ThreadPoolExecutor(THREADS) as callers:
        list(callers.map(lambda _: time.sleep(0.05), range(THREADS)))  # every thread is there
        began = time.perf_counter()
        list(callers.map(work, range(THREADS)))
        return THREADS * WRITES_OF_A_THREAD / (time.perf_counter() - began)


def other_process(url: str, told: Connection) -> None:
    """Write now and then, and tell when each commit was done."""

    async def write() -> None:
        store = await open_store(url)
        for run, _ in zip(runs("other"), range(HEARD), strict=False):
            await store.create(run)
            told.send((run.name, time.monotonic()))
            await asyncio.sleep(0.02)
        await store.close()

    asyncio.run(write())


async def heard_ms(store: Store, url: str) -> list[float]:
    """How long after another process's commit a follower had its change, sorted."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    arrived: dict[str, float] = {}
    async with store.changes() as changes:
        process = spawn.Process(target=other_process, args=(url, theirs))
        process.start()
        while len(arrived) < HEARD:
            change = await asyncio.wait_for(changes.__anext__(), 30)
            arrived[change.ref.name] = time.monotonic()
    committed = dict(ours.recv() for _ in range(HEARD))
    process.join()
    return sorted((arrived[name] - done) * 1000 for name, done in committed.items())


async def rest_percent(store: Store) -> float:
    """Share of a core that one follower takes while nothing happens."""
    async with store.changes() as changes:
        waiting = asyncio.ensure_future(changes.__anext__())
        await asyncio.sleep(0.5)
        began = time.process_time()
        await asyncio.sleep(REST_SECONDS)
        used = time.process_time() - began
        waiting.cancel()
        await asyncio.wait([waiting])
    return used / REST_SECONDS * 100


async def measure(folder: Path) -> dict[str, float]:
    """Everything, on a file and in memory."""
    figures: dict[str, float] = {}
    for where, url in (("file", str(folder / "bench.db")), ("memory", ":memory:")):
        store = await open_store(url)
        figures |= await one_by_one(store, where)
        figures[f"store_{where}_threads_{THREADS}_creates_per_s"] = await asyncio.to_thread(threads_per_second, store)
        if where == "file":
            heard = await heard_ms(store, url)
            figures["store_other_process_heard_p50_ms"] = statistics.median(heard)
            figures["store_other_process_heard_max_ms"] = heard[-1]
            figures["store_follower_at_rest_cpu_percent"] = await rest_percent(store)
        await store.close()
    return figures


def main() -> dict[str, float]:
    """Measure, print a table, return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder)))
    for key, value in figures.items():
        print(f"{key:40} {value:10.3f}")
    return figures


if __name__ == "__main__":
    main()
