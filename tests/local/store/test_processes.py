"""One SQLite file and several processes: nothing is lost, nobody is turned away, everybody hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloaca.errors import StoreUnavailable
from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.store import open_store

WRITER = """
import asyncio, sys, time
from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.store import open_store

async def main(path, name, count):
    store = await open_store(path)
    for number in range(count):
        made = await store.create(WorkflowRun(metadata=ObjectMeta(name=f"{name}-{number}"), spec=RunSpec(workflow="w")))
        await store.write_status(made.with_status(attempt=number, started_at=made.metadata.creation_timestamp))
        print(number, flush=True)
        if len(sys.argv) > 4:
            await asyncio.sleep(float(sys.argv[4]))
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def writer(database: Path, name: str, count: int, *pause: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(database), name, str(count), *pause],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_four_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    log = tmp_path / "store.db-wal"
    largest = 0
    writers = [writer(database, f"writer-{number}", 250) for number in range(4)]
    while any(process.poll() is None for process in writers):
        largest = max(largest, log.stat().st_size if log.exists() else 0)
        await asyncio.sleep(0.02)
    for process in writers:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "")
    assert largest < 32 * 1024 * 1024  # the log is copied into the database again and again
    store = await open_store(str(database))
    runs = await store.list(WorkflowRun)
    await store.close()
    assert {(run.name, run.status.attempt) for run in runs} == {
        (f"writer-{writer}-{number}", number) for writer in range(4) for number in range(250)
    }
    versions = [int(run.metadata.resource_version) for run in runs]
    assert len(set(versions)) == 1000
    assert max(versions) == 2000


async def test_writes_of_another_process_are_heard_of(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    store = await open_store(str(database))
    lags: list[float] = []
    async with store.changes() as changes:
        process = writer(database, "other", 20, "0.05")
        while len(lags) < 20:
            change = await asyncio.wait_for(changes.__anext__(), 20)
            run = await store.get(WorkflowRun, change.ref.name)
            assert run is not None
            assert run.metadata.creation_timestamp is not None
            lags.append(time.time() - run.metadata.creation_timestamp.timestamp())
    process.communicate(timeout=20)
    await store.close()
    print(f"median {statistics.median(lags) * 1000:.1f} ms until another process's write was heard of")
    assert statistics.median(lags) < 0.4  # told, not found by the look a second


async def test_eight_processes_make_one_file_at_once(tmp_path: Path) -> None:
    start = time.time() + 1.5
    opener = (
        "import asyncio, sys, time\nfrom cloaca.store import open_store\n"
        f"time.sleep(max(0, {start} - time.time()))\nasyncio.run(open_store(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", opener, str(tmp_path / f"{number}.db")], stderr=subprocess.PIPE, text=True
        )
        for number in (0, 0, 0, 0, 1, 1, 1, 1)
    ]
    assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 8


async def test_after_sigkill_every_acknowledged_write_is_there_and_the_file_is_whole(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    process = writer(database, "doomed", 100_000)
    assert process.stdout is not None
    acknowledged = -1
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged == 200:
            process.kill()
            break
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    store = await open_store(str(database))
    runs = {run.name: run.status.attempt for run in await store.list(WorkflowRun)}
    await store.close()
    assert {f"doomed-{number}": number for number in range(acknowledged + 1)}.items() <= runs.items()
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_threads_and_loops_share_one_store(tmp_path: Path) -> None:
    store = await open_store(str(tmp_path / "store.db"))

    def work(name: str) -> None:
        async def create() -> None:
            for number in range(50):
                await store.create(
                    WorkflowRun(metadata=ObjectMeta(name=f"{name}-{number}"), spec=RunSpec(workflow="w"))
                )

        asyncio.run(create())

    await asyncio.gather(*(asyncio.to_thread(work, f"thread-{number}") for number in range(20)))
    assert len(await store.list(WorkflowRun)) == 1000
    await store.close()


async def test_a_stopped_process_in_the_middle_of_a_write_stops_no_other_reader(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    store = await open_store(str(database))
    await store.create(WorkflowRun(metadata=ObjectMeta(name="here"), spec=RunSpec(workflow="w")))
    process = writer(database, "stopped", 100_000)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert await store.get(WorkflowRun, "here") is not None
    finally:
        process.kill()
        process.communicate(timeout=20)
    await store.create(WorkflowRun(metadata=ObjectMeta(name="afterwards"), spec=RunSpec(workflow="w")))
    await store.close()


async def test_a_lock_that_a_stopped_process_holds_does_not_freeze_the_others(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    store = await open_store(f"sqlite:///{database}?_busy_timeout=300")
    made = await store.create(WorkflowRun(metadata=ObjectMeta(name="here"), spec=RunSpec(workflow="w")))
    holder = (
        "import sys, time\nfrom cloaca.store.sql.filelock import FileLock\n"
        "lock = FileLock(sys.argv[1])\nassert lock.take()\nprint('held', flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holder, f"{database}.lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    try:
        write = asyncio.ensure_future(store.write_status(made.with_status(attempt=1)))
        await asyncio.sleep(0.05)
        assert await store.get(WorkflowRun, "here") == made
        with pytest.raises(StoreUnavailable, match=r"locked for 0.3 s: another program holds it"):
            await write
    finally:
        process.kill()
        process.communicate(timeout=20)
    assert (await store.write_status(made.with_status(attempt=1))).status.attempt == 1
    await store.close()


async def test_a_follower_that_fell_far_behind_is_shown_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloaca.store.sql.store.DELETIONS_KEPT", 3)
    store = await open_store(str(tmp_path / "store.db"))
    stays = await store.create(WorkflowRun(metadata=ObjectMeta(name="stays"), spec=RunSpec(workflow="w")))
    async with store.changes() as changes:
        for number in range(10):
            made = await store.create(stays.with_metadata(name=f"run-{number}"))
            await store.delete(made.ref)
        seen = [await asyncio.wait_for(changes.__anext__(), 10) for _ in range(4)]
        last = await store.create(stays.with_metadata(name="last"))
        assert (await asyncio.wait_for(changes.__anext__(), 10)).ref == last.ref
    await store.close()
    assert [(change.ref.name, change.deleted) for change in seen] == [
        ("stays", False),
        ("run-7", True),
        ("run-8", True),
        ("run-9", True),
    ]


async def test_a_child_process_does_not_use_its_parents_store(tmp_path: Path) -> None:
    store = await open_store(str(tmp_path / "store.db"))
    reader, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = b"nothing"
            coroutine = store.get(WorkflowRun, "x")
            try:
                coroutine.send(None)
            except StoreUnavailable as error:
                said = str(error).encode()
            with contextlib.suppress(StopIteration):
                store.close().send(None)  # which leaves all alone that is the parent's
            os.write(writing, said)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reader, "rb") as said:
        assert b"open one after the fork" in said.read()
    await store.create(WorkflowRun(metadata=ObjectMeta(name="still"), spec=RunSpec(workflow="w")))
    await store.close()


async def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    parent = """
import os, sys, time
from cloaca.store.sql.filelock import FileLock
lock = FileLock(sys.argv[1])
assert lock.take()
pid = os.fork()
if pid == 0:
    time.sleep(60)
else:
    print(pid, flush=True)
    os._exit(0)
"""
    database = tmp_path / "store.db"
    process = subprocess.Popen(
        [sys.executable, "-c", parent, f"{database}.lock"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.wait(20)
    try:
        store = await open_store(f"sqlite:///{database}?_busy_timeout=2000")
        await store.create(WorkflowRun(metadata=ObjectMeta(name="here"), spec=RunSpec(workflow="w")))
        await store.close()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()
