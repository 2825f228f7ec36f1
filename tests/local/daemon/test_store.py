"""A daemon whose store is somewhere else than in its home, and what every command makes of that."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
from builders import WORKFLOW, archive, declared
from cloacina_operator.hosts.lock import AlreadyRunning
from cloacina_operator.hosts.seat import Seat, SeatLost
from daemon_process import Daemon

from cloaca.errors import Conflict
from cloaca.resources import RunPhase, WorkflowRun
from cloaca.resources.seat import DAEMON
from cloaca.resources.seat import Seat as SeatObject
from cloaca.store import open_store

KEYED = (
    WORKFLOW
    + """
@cloaca.trigger(name="beat", poll_interval="100ms")
def beat(state):
    number = state.get("number", 0) + 1
    state.set("number", number)
    return cloaca.TriggerResult.fire({"number": number}, key=str(number))
"""
)


@pytest.fixture
def server() -> Iterator[postgres_server.Server]:
    """A server that a test may stop."""
    made = postgres_server.own_server(fsync=False)
    yield made
    made.remove()


def cloaca(daemon: Daemon, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloaca.cli.main", *arguments, "--home", str(daemon.home.root)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("how", ["settings", "environment", "option"])
async def test_every_command_works_on_the_store_that_is_named(daemon: Daemon, how: str) -> None:
    url = postgres_server.shared().url()
    options, environment = [], {}
    if how == "settings":
        daemon.keep_in(url)
    elif how == "environment":
        environment = {"CLOACINA_STORE": url}
    else:
        options = ["--store", url]
    daemon.store = url
    daemon.options, daemon.environment = options, {**daemon.environment, **environment}
    daemon.deploy(archive(WORKFLOW))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))

    listed = cloaca(daemon, "get", "packages", "-o", "name", *options, **environment)
    assert (listed.stdout, listed.stderr) == ("cloacinapackage.cloacina.io/demo\n", "")
    assert f"Store:      {url}\n" in cloaca(daemon, "status", *options, **environment).stdout
    assert not daemon.home.database.exists()
    assert daemon.stop() == 0


async def test_runs_are_fired_followed_and_logged_from_the_command_line(daemon: Daemon) -> None:
    daemon.keep_in(postgres_server.shared().url())
    daemon.deploy(archive(WORKFLOW.replace('context.set("done", True)', 'print("worked")')))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))

    ran = cloaca(daemon, "run", "package/demo", "demo", "--wait")
    assert (ran.returncode, ran.stderr) == (0, "")
    name = cloaca(daemon, "get", "runs", "-o", "name").stdout.strip()
    assert cloaca(daemon, "logs", name).stdout == "worked\n"
    assert daemon.stop() == 0


async def test_a_database_that_restarts_holds_the_daemon_up_and_loses_nothing(
    daemon: Daemon, server: postgres_server.Server, tmp_path: Path
) -> None:
    """Finished runs are collected, so what ran is read from what the tasks wrote."""
    ran = tmp_path / "ran"
    ran.touch()
    said = f"open({str(ran)!r}, 'a').write(f\"{{context['number']}} \")"
    code = KEYED.replace("context.set(", f"{said}\n        context.set(", 1)
    daemon.keep_in(server.url("workflows"))
    daemon.deploy(archive(code, triggers=[declared("beat", poll_interval="100ms")]))
    daemon.start()
    await daemon.runs(lambda runs: any(run.status.phase is RunPhase.COMPLETED for run in runs))
    server.stop()
    server.start()
    before = len(ran.read_text().split())

    async def went_on(_: object) -> bool:
        return len(ran.read_text().split()) >= before + 5

    await daemon.eventually("runs after the restart", went_on)
    assert daemon.stop() == 0

    store = await open_store(daemon.store)
    left = {run.spec.context["number"]: run.status.phase for run in await store.list(WorkflowRun)}
    await store.close()
    assert set(left.values()) <= {RunPhase.COMPLETED, RunPhase.PENDING}  # fired when the daemon was about to leave
    numbers = sorted({*map(int, ran.read_text().split()), *left})
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_second_daemon_on_one_store_is_refused_and_may_have_it_when_the_first_has_left(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.keep_in(postgres_server.shared().url())
    other = Daemon(tmp_path / "other" / "home")
    other.home.root.parent.mkdir()
    other.environment = daemon.environment
    other.keep_in(daemon.store)
    daemon.deploy(archive(WORKFLOW))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    assert daemon.process is not None

    other.start()
    assert other.process is not None
    assert other.process.wait(60) == 1
    assert f"a daemon (process {daemon.process.pid} on " in other.log
    assert "works on this store already: stop it, or give this one another store" in other.log

    daemon.kill()
    other.deploy(archive(WORKFLOW, version="1.1.0"))
    other.start()

    async def moved(store: object) -> bool:
        package = await other.package(Ready=("True", "Ready"))
        return package.status.active is not None and package.status.active.version == "1.1.0"

    assert await other.eventually("the new version", moved)
    assert other.stop() == 0


async def test_what_cannot_be_a_store_is_refused_with_what_can(daemon: Daemon) -> None:
    daemon.keep_in(":memory:")
    daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait(60) == 1
    assert daemon.log.startswith("cloaca daemon: ':memory:' lives in one process")
    assert cloaca(daemon, "get", "packages").stderr.startswith("Error: ':memory:' lives in one process")


async def test_a_database_that_is_away_at_the_start_is_said_without_its_password(daemon: Daemon) -> None:
    daemon.keep_in(f"postgresql://me:secret@/db?host={daemon.home.root}")
    daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait(60) == 1
    assert "start the server, or name the folder of its socket as host" in daemon.log
    assert "secret" not in daemon.log


# --- the seat


async def test_a_daemon_elsewhere_keeps_its_seat_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    store = await open_store(postgres_server.shared().url())
    try:
        first = await Seat.take(store, tmp_path)
        (mine,) = await store.list(SeatObject)
        elsewhere = await store.update(mine.with_spec(machine="another", pid=7))

        class Beating:
            """The other one gives a sign whenever it is looked at."""

            async def get(self, *_: object) -> SeatObject | None:
                seen = await store.get(SeatObject, DAEMON)
                assert seen is not None
                return await store.write_status(seen.with_status(beat=seen.status.beat + 1))

        with pytest.raises(AlreadyRunning, match=r"process 7 on .* works on this store already"):
            await Seat.take(Beating(), tmp_path, expiry=30.0)  # type: ignore[arg-type]  # nothing else is asked of it

        second = await Seat.take(store, tmp_path / "another", expiry=0.0)  # silent for as long as it may be
        with pytest.raises(SeatLost, match="another one works on its store now"):
            await Seat(store, elsewhere, 0.0, 20.0).keep()
        await first.leave()
        (kept,) = await store.list(SeatObject)
        assert kept.spec.home == str(tmp_path / "another")
        await second.leave()
        assert await store.list(SeatObject) == ()
    finally:
        await store.close()


async def test_a_sign_of_life_whose_answer_was_lost_costs_no_seat(tmp_path: Path) -> None:
    store = await open_store(postgres_server.shared().url())
    try:
        seat = await Seat.take(store, tmp_path, beat=0.01)
        keeping = asyncio.ensure_future(seat.keep())
        (mine,) = await store.list(SeatObject)
        while True:  # a write of ours that this process never heard of
            try:
                lost = await store.write_status(mine.with_status(beat=1_000))
            except Conflict:
                (mine,) = await store.list(SeatObject)
                continue
            break
        async with store.changes() as changes:
            while (await store.list(SeatObject))[0].status.beat <= lost.status.beat:
                await changes.__anext__()
        assert not keeping.done()
        keeping.cancel()
        await asyncio.wait({keeping})
    finally:
        await store.close()
