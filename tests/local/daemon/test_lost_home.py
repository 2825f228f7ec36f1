"""A daemon whose home or database is removed or replaced under it notices, stops polling, says so, and ends."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from builders import archive, declared
from daemon_process import PATIENCE, Daemon, processes_with

from cloaca.resources import CloacinaPackage
from cloaca.store import Store

CODE = """
import os
import cloaca

with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="only")
    def only(context):
        pass

@cloaca.trigger(name="count", poll_interval="100ms")
def count():
    with open(os.environ["POLLS"], "a") as polls:
        polls.write(".")
    return cloaca.TriggerResult.skip()
"""


async def polling(daemon: Daemon, tmp_path: Path) -> Path:
    """Start the daemon with a package; returns the file that grows with each poll."""
    polls = tmp_path / "polls"
    daemon.environment["POLLS"] = str(polls)
    daemon.start()
    daemon.deploy(archive(CODE, triggers=[declared("count", poll_interval="100ms")]))
    await daemon.package(Ready=("True", "Ready"))

    async def polled(store: object) -> bool:  # what is looked at is a file
        return polls.exists()

    await daemon.eventually("a poll", polled)
    return polls


def ended(daemon: Daemon) -> int:
    """The exit code of the daemon, which ends by itself, and all that it started with it."""
    assert daemon.process is not None
    code = daemon.process.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while left := processes_with(f"CLOACINA_TEST={daemon.environment['CLOACINA_TEST']}"):
        assert time.monotonic() < deadline, f"processes outlived their daemon: {left}"
        time.sleep(0.02)
    return code


def _replaced(path: Path) -> None:
    """As `mv backup.db cloacina.db` does it."""
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    backup.replace(path)


LOST: dict[str, tuple[Callable[[Daemon], object], str]] = {
    "home removed": (lambda daemon: shutil.rmtree(daemon.home.root), "the home {home} was removed or moved away"),
    "home moved": (
        lambda daemon: daemon.home.root.rename(daemon.home.root.with_name("moved")),
        "the home {home} was removed or moved away",
    ),
    "home replaced": (
        lambda daemon: (daemon.home.root.rename(daemon.home.root.with_name("moved")), daemon.home.root.mkdir()),
        "the home {home} was replaced by another one",
    ),
    "database removed": (
        lambda daemon: daemon.home.database.unlink(),
        "the database {home}/cloacina.db was removed or moved away",
    ),
    "database replaced": (
        lambda daemon: _replaced(daemon.home.database),
        "the database {home}/cloacina.db was replaced by another one",
    ),
    "its log removed": (
        lambda daemon: Path(f"{daemon.home.database}-wal").unlink(),
        "the log of the database {home}/cloacina.db-wal was removed or moved away",
    ),
    "the index of its log removed": (  # as a tool for backups did, after which other processes lock another one
        lambda daemon: Path(f"{daemon.home.database}-shm").unlink(),
        "the index of the log of the database {home}/cloacina.db-shm was removed or moved away",
    ),
}


@pytest.mark.parametrize("case", LOST)
async def test_a_daemon_that_lost_what_it_works_on_ends(case: str, daemon: Daemon, tmp_path: Path) -> None:
    lose, said = LOST[case]
    polls = await polling(daemon, tmp_path)
    lose(daemon)
    assert ended(daemon) == 1
    assert f"cloaca daemon: {said.format(home=daemon.home.root)}: the daemon cannot go on." in daemon.log
    assert "Traceback" not in daemon.log
    polled = polls.stat().st_size
    time.sleep(0.5)  # five polls, were there somebody to make them
    assert polls.stat().st_size == polled


async def test_the_end_does_not_touch_the_database_of_the_next_daemon(daemon: Daemon, tmp_path: Path) -> None:
    """SQLite removes the log of a database by its name when the last one that has it open lets go."""
    await polling(daemon, tmp_path)
    first = daemon.process
    daemon.home.root.rename(tmp_path / "moved")
    daemon.start()  # another home under the same name, while the first daemon has not noticed yet
    second = daemon.process
    daemon.deploy(archive(CODE, name="other", triggers=[declared("count")]), "other.cloacina")
    await daemon.package("other", Ready=("True", "Ready"))
    assert first is not None
    assert second is not None
    assert first.wait(PATIENCE) == 1
    assert Path(f"{daemon.home.database}-wal").exists()
    assert second.poll() is None
    with closing(sqlite3.connect(daemon.home.database)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    daemon.kill()
    daemon.start()
    await daemon.package("other", Ready=("True", "Ready"))


async def test_the_moved_home_can_be_used_where_it_is(daemon: Daemon, tmp_path: Path) -> None:
    await polling(daemon, tmp_path)
    before = await daemon.package(Ready=("True", "Ready"))
    moved = tmp_path / "moved"
    daemon.home.root.rename(moved)
    assert ended(daemon) == 1
    again = Daemon(moved)
    again.environment = daemon.environment
    again.start()
    url = (moved / "packages" / "demo-1.0.0.cloacina").as_uri()

    async def follows(store: Store) -> bool:
        package = await store.get(CloacinaPackage, "demo")
        assert package is not None
        assert package.metadata.uid == before.metadata.uid
        return package.spec.source.url == url

    try:
        await again.eventually("the package to follow its file", follows)
        await again.package(Ready=("True", "Ready"))
    finally:
        assert again.stop() == 0


async def test_a_named_database_elsewhere_is_looked_after_too(daemon: Daemon, tmp_path: Path) -> None:
    database = tmp_path / "elsewhere" / "store.db"
    database.parent.mkdir()
    daemon.keep_in(f"sqlite:///{database}")
    await polling(daemon, tmp_path)
    shutil.rmtree(database.parent)
    assert ended(daemon) == 1
    assert f"the database {database} was removed or moved away" in daemon.log


async def test_a_daemon_on_a_server_ends_without_its_home_and_lets_the_next_one_in(
    anywhere: Daemon, tmp_path: Path
) -> None:
    await polling(anywhere, tmp_path)
    config = anywhere.home.config.read_bytes() if anywhere.home.config.exists() else None
    shutil.rmtree(anywhere.home.root)
    assert ended(anywhere) == 1
    anywhere.home.root.mkdir()
    if config is not None:
        anywhere.home.config.write_bytes(config)
    anywhere.start()

    async def ready(store: object) -> bool:  # the log says it
        return anywhere.log.count("ready: ") == 2

    await anywhere.eventually("the next daemon", ready)
    assert anywhere.stop() == 0


async def test_a_lock_that_somebody_removed_is_taken_again(daemon: Daemon, tmp_path: Path) -> None:
    await polling(daemon, tmp_path)
    daemon.home.lock.unlink()

    async def back(store: object) -> bool:  # the file says it
        return daemon.home.lock.exists()

    await daemon.eventually("the lock", back)
    assert daemon.process is not None
    mine = daemon.process
    daemon.start()
    assert daemon.process.wait(PATIENCE) == 1
    assert f"a daemon (process {mine.pid}) runs on {daemon.home.root} already" in daemon.log
    daemon.process = mine
    assert daemon.stop() == 0


async def test_a_daemon_whose_lock_another_one_took_ends(daemon: Daemon, tmp_path: Path) -> None:
    polls = await polling(daemon, tmp_path)
    daemon.home.lock.unlink()
    other = subprocess.Popen(["flock", str(daemon.home.lock), "sleep", "600"], start_new_session=True)
    try:
        assert ended(daemon) == 1
    finally:
        os.killpg(other.pid, 9)
        other.wait()
    assert "a daemon (process unknown) runs on" in daemon.log
    polled = polls.stat().st_size
    time.sleep(0.5)
    assert polls.stat().st_size == polled
