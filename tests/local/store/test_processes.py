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
    writers = [writer(database, f"writer-{number}", 250) for number in range(4)]
    for process in writers:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "")
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
            os.write(writing, said)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reader, "rb") as said:
        assert b"open one after the fork" in said.read()
    await store.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda path: path.write_bytes(b"no database " * 100), "is something else", id="no database"),
        pytest.param(lambda path: path.mkdir(), "its folder must exist", id="a folder"),
    ],
)
async def test_a_file_that_is_no_store_is_said_clearly(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "store.db"
    make(path)  # type: ignore[operator]
    with pytest.raises(StoreUnavailable, match=words):
        await open_store(str(path))


async def test_a_damaged_file_is_said_clearly(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await open_store(str(path))
    for number in range(200):
        await store.create(WorkflowRun(metadata=ObjectMeta(name=f"run-{number}"), spec=RunSpec(workflow="w")))
    await store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 8192))
    with pytest.raises(StoreUnavailable, match="restore it from a backup"):  # noqa: PT012 - which of both finds it
        store = await open_store(str(path))
        await store.list(WorkflowRun)


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await open_store(str(path))).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailable, match="written by a newer version"):
        await open_store(str(path))


async def test_a_missing_folder_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="its folder must exist"):
        await open_store(str(tmp_path / "nowhere" / "store.db"))


async def test_a_full_file_is_said_clearly_and_what_was_written_stands(tmp_path: Path) -> None:
    store = await open_store(str(tmp_path / "store.db"))
    made = await store.create(WorkflowRun(metadata=ObjectMeta(name="first"), spec=RunSpec(workflow="w")))
    store._database._transactions._connection.execute("PRAGMA max_page_count = 30")  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable, match="make room"):  # noqa: PT012 - one of many fills it
        for number in range(1000):
            await store.create(
                WorkflowRun(
                    metadata=ObjectMeta(name=f"run-{number}"), spec=RunSpec(workflow="w", context={"x": "x" * 2000})
                )
            )
    assert await store.get(WorkflowRun, "first") == made
    await store.close()
