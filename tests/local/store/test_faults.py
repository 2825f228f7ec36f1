"""SQLite files that cannot be used, or not any more: said clearly, and what was written before stands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cloaca.errors import StoreUnavailable
from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.store import open_store

FILLER = """
import asyncio, resource, sys
from cloaca.errors import StoreUnavailable
from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.store import open_store

def run(name, size):
    return WorkflowRun(metadata=ObjectMeta(name=name), spec=RunSpec(workflow="w", context={"x": "x" * size}))

async def main(path, limit):
    store = await open_store(path)
    first = await store.create(run("first", 10))
    if limit:
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        for number in range(1000):
            await store.create(run(f"run-{number}", 20000))
    except StoreUnavailable as error:
        print(error)
    assert await store.get(WorkflowRun, "first") == first
    print(f"{number} fit, and {len(await store.list(WorkflowRun)) - 1} are there")
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


# Root is above file modes, so become somebody else, once the modules are imported that he may not read.
WRITE_AS_NOBODY = """
import asyncio, os, sys
import cloaca.store.sql.store
from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.store import open_store

if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)

async def main(path):
    store = await open_store(path)
    await store.create(WorkflowRun(metadata=ObjectMeta(name="other"), spec=RunSpec(workflow="w")))

asyncio.run(main(sys.argv[1]))
"""


def small(name: str) -> WorkflowRun:
    return WorkflowRun(metadata=ObjectMeta(name=name), spec=RunSpec(workflow="w"))


async def names(path: Path) -> list[str]:
    store = await open_store(str(path))
    found = [run.name for run in await store.list(WorkflowRun)]
    await store.close()
    return found


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda path: path.write_bytes(b"no database " * 100), "is something else", id="no database"),
        pytest.param(lambda path: path.mkdir(), "it is a folder: name a file in it", id="a folder"),
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
        await store.create(small(f"run-{number}"))
    await store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 8192))
    with pytest.raises(StoreUnavailable, match="restore it from a backup"):  # noqa: PT012 - any of them may find it
        store = await open_store(str(path))
        try:
            await store.list(WorkflowRun)
        finally:
            await store.close()


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await open_store(str(path))).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="written by a newer version"):
        await open_store(str(path))
    assert path.read_bytes() == before


async def test_a_missing_folder_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="its folder must exist"):
        await open_store(str(tmp_path / "nowhere" / "store.db"))


async def test_a_file_that_may_not_grow_is_said_clearly_and_what_was_written_stands(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    said = subprocess.run(
        [sys.executable, "-c", FILLER, str(path), str(1024 * 1024)], capture_output=True, text=True, timeout=60
    )
    assert said.stderr == ""
    error, counted = said.stdout.splitlines()
    assert "look after the disk (and its free space); what was written before stands" in error
    fit = counted.split()[0]
    assert counted == f"{fit} fit, and {fit} are there"
    assert len(await names(path)) == int(fit) + 1
    await assert_usable(path)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare (util-linux) to mount a small disk")
async def test_a_full_disk_is_said_clearly_and_what_was_written_stands(tmp_path: Path) -> None:
    path = tmp_path / "disk" / "store.db"
    path.parent.mkdir()
    script = f'mount -t tmpfs -o size=1m none {path.parent} && exec {sys.executable} -c "$FILLER" {path} 0'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    said = subprocess.run(
        ["unshare", *user, "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FILLER": FILLER},
    )
    if "unshare:" in said.stderr or "mount:" in said.stderr:
        pytest.skip(f"no small disk can be mounted here: {said.stderr.strip()}")
    assert said.stderr == ""
    error, counted = said.stdout.splitlines()
    assert "make room; what was written before stands" in error
    fit = counted.split()[0]
    assert counted == f"{fit} fit, and {fit} are there"


@pytest.mark.parametrize("there", [False, True], ids=["without a file", "with a file"])
async def test_a_read_only_folder_is_said_clearly(there: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to anybody else
        path = Path(folder) / "store.db"
        if there:
            store = await open_store(str(path))
            await store.create(small("here"))
            await store.close()
            path.chmod(0o444)
        Path(folder).chmod(0o555)
        said = subprocess.run([sys.executable, "-c", WRITE_AS_NOBODY, path], capture_output=True, text=True, timeout=60)
        Path(folder).chmod(0o755)
        error = said.stderr.splitlines()[-1]
        assert error.startswith(f"cloaca.errors.StoreUnavailable: the database {path}: ")
        assert "writable" in error
        assert sorted(file.name for file in Path(folder).iterdir() if not file.name.endswith(".lock")) == (
            ["store.db"] if there else []
        )


async def test_a_file_opened_read_only_is_read_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    writing = await open_store(str(path))
    made = await writing.create(small("here"))
    reading = await open_store(f"sqlite:///{path}?mode=ro")
    assert await reading.get(WorkflowRun, "here") == made
    with pytest.raises(StoreUnavailable, match="readonly database: make the file and its folder writable"):
        await reading.create(small("other"))
    async with reading.changes() as changes:
        later = await writing.create(small("later"))
        assert (await asyncio.wait_for(changes.__anext__(), 10)).ref == later.ref
    await reading.close()
    await writing.close()


async def test_reading_only_needs_a_file_that_is_there_and_has_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(StoreUnavailable, match="unable to open"):
        await open_store(f"sqlite:///{path}?mode=ro")
    path.touch()
    with pytest.raises(StoreUnavailable, match="open it with mode=rw once"):
        await open_store(f"sqlite:///{path}?mode=ro")


async def test_what_a_newer_version_wrote_into_an_object_stays_there(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await open_store(str(path))
    await store.create(small("here"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE objects SET status = json_set(status, '$.fresh', 1), spec = json_set(spec, '$.x', 2)"
        )
        connection.commit()
    seen = await store.get(WorkflowRun, "here")
    assert seen is not None
    seen = await store.write_status(seen.with_status(attempt=1))
    await store.update(seen.with_spec(cancel=True))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT json_extract(status, '$.fresh', '$.attempt'), json_extract(spec, '$.x', '$.cancel') FROM objects"
        ).fetchall()
    assert found == [("[1,1]", "[2,true]")]
    await store.close()


async def assert_usable(path: Path) -> None:
    """The file is whole, and takes writes again."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store = await open_store(str(path))
    await store.create(small("afterwards"))
    await store.close()


async def test_a_full_file_is_said_clearly_and_what_was_written_stands(tmp_path: Path) -> None:
    store = await open_store(str(tmp_path / "store.db"))
    made = await store.create(small("first"))
    store._database._transactions.connection.execute("PRAGMA max_page_count = 30")  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable, match="make room"):  # noqa: PT012 - one of many fills it
        for number in range(1000):
            await store.create(
                WorkflowRun(
                    metadata=ObjectMeta(name=f"run-{number}"), spec=RunSpec(workflow="w", context={"x": "x" * 2000})
                )
            )
    assert await store.get(WorkflowRun, "first") == made
    await store.close()
