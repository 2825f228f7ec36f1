"""PostgreSQL: several processes on one schema, a server that goes and comes, and what cannot be used."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import postgres_server
import psycopg
import pytest

import cloaca
from cloaca.errors import AlreadyExists, StoreUnavailable
from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.store import Store, open_store
from cloaca.store.sql.postgres import MIGRATIONS, PostgresDatabase
from cloaca.store.sql.url import parse_url

WRITER = """
import asyncio, sys
from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.store import open_store

async def main(url, name, count):
    store = await open_store(url)
    for number in range(count):
        made = await store.create(WorkflowRun(metadata=ObjectMeta(name=f"{name}-{number}"), spec=RunSpec(workflow="w")))
        await store.write_status(made.with_status(attempt=number))
        print(number, flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def small(name: str) -> WorkflowRun:
    return WorkflowRun(metadata=ObjectMeta(name=name), spec=RunSpec(workflow="w"))


def writer(url: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, url, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def server() -> postgres_server.Shared:
    return postgres_server.shared()


@pytest.fixture
def own() -> Iterator[postgres_server.Server]:
    """A server that the test may stop and start."""
    server = postgres_server.own_server()
    yield server
    server.remove()


# --- several processes


async def test_what_three_processes_write_at_once_a_follower_sees_whole_and_in_order(
    server: postgres_server.Shared,
) -> None:
    url = server.url()
    store = await open_store(url)
    newest: list[int] = []
    async with store.changes() as changes:
        writers = [writer(url, f"writer-{number}", 100) for number in range(3)]
        finished: set[str] = set()
        while len(finished) < 300:
            change = await asyncio.wait_for(changes.__anext__(), 60)
            run = await store.get(WorkflowRun, change.ref.name)
            assert run is not None
            newest.append(int(run.metadata.resource_version))
            if run.metadata.generation and run.status.attempt == int(run.name.rsplit("-", 1)[1]):
                finished.add(run.name)
    for process in writers:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")
    runs = await store.list(WorkflowRun)
    await store.close()
    assert len(runs) == 300
    versions = [int(run.metadata.resource_version) for run in runs]
    assert (len(set(versions)), max(versions)) == (300, 597)  # attempt 0 is what a run has when it is made


async def test_resource_versions_become_visible_in_their_order(server: postgres_server.Shared) -> None:
    """A follower that has seen a version never meets an older one that it did not see."""
    url = server.url()
    stores = [await open_store(url) for _ in range(4)]
    database = stores[0]._database  # type: ignore[attr-defined]
    done = asyncio.Event()
    seen: list[set[int]] = []

    async def look() -> None:
        while not done.is_set():
            seen.append({row[0] for row in await database.read("SELECT resource_version FROM objects", {})})

    looking = asyncio.ensure_future(look())
    await asyncio.gather(*(store.create(small(f"s{n}-{i}")) for n, store in enumerate(stores) for i in range(60)))
    done.set()
    await looking
    assert [versions for versions in seen if versions != set(range(1, len(versions) + 1))] == []
    for store in stores:
        await store.close()


async def test_of_two_processes_that_update_one_object_nobody_loses_a_write(server: postgres_server.Shared) -> None:
    url = server.url()
    stores = [await open_store(url), await open_store(url)]
    await stores[0].create(small("run"))

    async def count(store: Store) -> None:
        for _ in range(50):
            while True:
                seen = await store.get(WorkflowRun, "run")
                assert seen is not None
                try:
                    await store.write_status(seen.with_status(attempt=seen.status.attempt + 1))
                except cloaca.errors.Conflict:
                    continue
                break

    await asyncio.gather(*(count(store) for store in stores))
    seen = await stores[0].get(WorkflowRun, "run")
    assert seen is not None
    assert seen.status.attempt == 100
    for store in stores:
        await store.close()


async def test_four_stores_make_one_schema_at_once(server: postgres_server.Shared) -> None:
    url = server.url()
    stores = await asyncio.gather(*(open_store(url) for _ in range(4)))
    await stores[0].create(small("run"))
    assert [run.name for run in await stores[3].list(WorkflowRun)] == ["run"]
    for store in stores:
        await store.close()


async def test_after_sigkill_of_a_writer_every_acknowledged_write_is_there(server: postgres_server.Shared) -> None:
    url = server.url()
    process = writer(url, "doomed", 100_000)
    assert process.stdout is not None
    acknowledged = next(int(line) for line in process.stdout if int(line) == 100)
    process.kill()
    process.communicate(timeout=20)
    store = await open_store(url)
    runs = {run.name: run.status.attempt for run in await store.list(WorkflowRun)}
    await store.create(small("afterwards"))
    await store.close()
    assert {f"doomed-{number}": number for number in range(acknowledged + 1)}.items() <= runs.items()


@pytest.mark.parametrize("statement", ["unread", "read"])
async def test_a_writer_that_was_stopped_in_its_transaction_is_ended_for_the_next(
    server: postgres_server.Shared, statement: str
) -> None:
    url = server.url(lock_timeout="2000")
    store = await open_store(url)
    stopped = """
import signal, sys, asyncio, threading
from cloaca.store import open_store
async def main():
    store = await open_store(sys.argv[1])
    def work(connection):
        rows = connection.execute("SELECT 1", {})
        if sys.argv[2] == "read":
            rows.fetchone()
        print("inside", flush=True)
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # os.kill may stop this thread last
    await store._database.write(work)
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", stopped, url, statement], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "inside\n"
        await store.create(small("run"))  # waits until the server, or it, has ended the other one
    finally:
        process.kill()
        process.communicate(timeout=20)
    await store.close()


async def test_who_gets_no_turn_is_told_so(server: postgres_server.Shared) -> None:
    url = server.url(schema := f"t_{uuid.uuid4().hex}", lock_timeout="1000")
    store = await open_store(url)
    with psycopg.connect(server.admin) as holder:
        holder.execute(f'LOCK TABLE "{schema}".counters')
        with pytest.raises(StoreUnavailable, match="lock timeout: another program holds it: end that one"):
            await store.create(small("run"))
    await store.create(small("run"))
    await store.close()


async def test_a_transaction_that_loses_a_deadlock_is_made_again(server: postgres_server.Shared) -> None:
    url = server.url(schema := f"t_{uuid.uuid4().hex}")
    store = await open_store(url)
    made = await store.create(small("run"))
    with psycopg.connect(server.admin) as foreign:
        foreign.execute("SET deadlock_timeout = '60s'")
        foreign.execute(f'SELECT 1 FROM "{schema}".objects FOR UPDATE')
        write = asyncio.ensure_future(store.write_status(made.with_status(attempt=1)))
        with psycopg.connect(server.admin, autocommit=True) as watching:
            waiting = f"SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> {foreign.info.backend_pid}"
            while watching.execute(waiting).fetchone() is None:
                await asyncio.sleep(0)
        # ours holds the counter and waits for the object; now the other way round
        crossing = asyncio.to_thread(foreign.execute, f'SELECT 1 FROM "{schema}".counters FOR UPDATE')
        await crossing
    assert (await write).status.attempt == 1
    await store.close()


async def test_a_child_process_does_not_use_its_parents_store(server: postgres_server.Shared) -> None:
    store = await open_store(server.url())
    reader, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = b"nothing"
            try:
                store.get(WorkflowRun, "x").send(None)
            except StoreUnavailable as error:
                said = str(error).encode()
            os.write(writing, said)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reader, "rb") as said:
        assert b"open one after the fork" in said.read()
    await store.create(small("still"))
    await store.close()


# --- a server that goes and comes


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_after_the_server_comes_back_the_store_goes_on_and_followers_miss_nothing(
    own: postgres_server.Server, how: signal.Signals
) -> None:
    store = await open_store(own.url("tenant"))
    made = await store.create(small("before"))
    own.stop(how)
    for call in (store.get(WorkflowRun, "before"), store.create(small("meanwhile"))):
        with pytest.raises(StoreUnavailable, match="start the server"):
            await call
    own.start()
    assert await store.get(WorkflowRun, "before") == made
    async with store.changes() as changes:
        later = await open_store(own.url("tenant"))
        await later.create(small("after"))
        assert (await asyncio.wait_for(changes.__anext__(), 20)).ref.name == "after"
        own.stop(how)
        own.start()
        await later.create(small("again"))
        assert (await asyncio.wait_for(changes.__anext__(), 20)).ref.name == "again"
        await later.close()
    await store.close()


async def test_a_commit_whose_answer_is_lost_is_looked_up(server: postgres_server.Shared) -> None:
    """The connection breaks right after COMMIT was sent: the caller hears what became of it, not a guess."""
    url = server.url()
    store = await open_store(url)
    writer = store._database._writing._perform.__self__  # type: ignore[attr-defined]
    told = []

    def break_once() -> None:
        if not told:
            told.append(True)
            writer._session.discard()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    writer._committed = break_once
    made = await store.create(small("run"))
    assert told == [True]
    assert await store.get(WorkflowRun, "run") == made
    with pytest.raises(AlreadyExists):
        await store.create(small("run"))
    await store.close()


# --- what cannot be used


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("postgresql://tester@127.0.0.1:1/db", "Connection refused.*: start the server", id="no server"),
        pytest.param("postgresql://tester@/db?host=/nowhere", "name the folder of its socket", id="no socket"),
        pytest.param("postgresql://tester@h/db?connect_timeout=x", "connect_timeout", id="bad value"),
        pytest.param("postgresql://tester@h:port/db", "port", id="bad port"),
    ],
)
async def test_a_server_that_cannot_be_reached_is_said_clearly(url: str, words: str) -> None:
    with pytest.raises(StoreUnavailable, match=words):
        await open_store(url)
    with pytest.raises(StoreUnavailable, match=r"^Failed to create DefaultRunner with schema 'tenant_a': "):
        await asyncio.to_thread(cloaca.DefaultRunner.with_schema, url, "tenant_a")


async def test_a_database_that_is_not_there_is_said_clearly(server: postgres_server.Shared) -> None:
    with pytest.raises(StoreUnavailable, match='database "nowhere" does not exist: make it with createdb'):
        await open_store(server.url(database="nowhere"))


async def test_a_user_that_is_not_there_is_said_clearly(server: postgres_server.Shared) -> None:
    with pytest.raises(StoreUnavailable, match='role "stranger" does not exist: correct the user'):
        await open_store(server.url(user="stranger"))


@pytest.fixture
def database(server: postgres_server.Shared) -> Iterator[Callable[[str], str]]:
    """Makes a database of its own, with some options; returns its name."""
    made = []

    def make(options: str = "") -> str:
        made.append(name := f"d_{uuid.uuid4().hex}")
        with psycopg.connect(server.admin, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" {options}')
        return name

    yield make
    with psycopg.connect(server.admin, autocommit=True) as connection:
        for name in made:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_a_database_that_takes_no_writes_is_read_and_not_written(
    server: postgres_server.Shared, database: Callable[[str], str]
) -> None:
    name = database("")
    url = server.url("tenant", database=name)
    store = await open_store(url)
    made = await store.create(small("here"))
    await store.close()
    with psycopg.connect(server.admin, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    store = await open_store(url)
    assert await store.get(WorkflowRun, "here") == made
    with pytest.raises(StoreUnavailable, match=r"read-only transaction: it takes no writes \(a standby"):
        await store.create(small("other"))
    await store.close()
    with pytest.raises(StoreUnavailable, match="it takes no writes"):
        await open_store(server.url("another", database=name))


async def test_a_database_that_cannot_keep_every_text_is_refused(
    server: postgres_server.Shared, database: Callable[[str], str]
) -> None:
    name = database("ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(StoreUnavailable, match=r"keeps texts as LATIN1: make a database .* --encoding UTF8"):
        await open_store(server.url(database=name))


async def test_who_may_make_no_schema_is_told_what_to_grant(server: postgres_server.Shared) -> None:
    user = f"u_{uuid.uuid4().hex}"
    with psycopg.connect(server.admin, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{user}" LOGIN')
    with pytest.raises(StoreUnavailable, match=r"permission denied .*: grant it: GRANT CREATE ON DATABASE"):
        await open_store(server.url(user=user))


async def test_a_schema_that_somebody_dropped_is_said_clearly(server: postgres_server.Shared) -> None:
    store = await open_store(server.url(schema := f"t_{uuid.uuid4().hex}"))
    with psycopg.connect(server.admin, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
    for call in (store.get(WorkflowRun, "x"), store.create(small("x"))):
        with pytest.raises(StoreUnavailable, match="the schema was dropped"):
            await call
    await store.close()


def test_without_psycopg_it_says_how_to_get_it() -> None:
    program = (
        "import sys, asyncio\nsys.modules['psycopg'] = None\nfrom cloaca.store import open_store\n"
        "asyncio.run(open_store('postgresql://localhost/db'))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert said.stderr.splitlines()[-1].startswith(
        "cloaca.errors.StoreUnavailable: PostgreSQL needs the package psycopg"
    )
    assert said.stderr.rstrip().endswith("run pip install 'cloacina[postgres]'")


# --- schemas and migrations


async def test_tenants_see_nothing_of_each_other(server: postgres_server.Shared) -> None:
    one, two = await open_store(server.url()), await open_store(server.url())
    await one.create(small("run"))
    assert await two.list(WorkflowRun) == ()
    async with two.changes() as changes:
        await one.create(small("other"))
        mine = await two.create(small("mine"))
        assert (await asyncio.wait_for(changes.__anext__(), 20)).ref == mine.ref
    await one.close()
    await two.close()


def test_a_runner_executes_in_the_schema_of_its_tenant(server: postgres_server.Shared) -> None:
    with cloaca.WorkflowBuilder("greet"):

        @cloaca.task()
        def hello(context: Any) -> None:
            context.set("said", "hello")

    tenant = f"tenant_{uuid.uuid4().hex}"
    with cloaca.DefaultRunner.with_schema(server.admin, tenant) as runner:
        result = runner.execute("greet", cloaca.Context())
    assert (result.status, result.final_context["said"]) == ("Completed", "hello")

    async def names() -> list[str]:
        store = await open_store(server.url(tenant))
        found = [run.spec.workflow for run in await store.list(WorkflowRun)]
        await store.close()
        return found

    assert asyncio.run(names()) == ["greet"]


ADDED = "CREATE TABLE added (name TEXT)"


async def test_an_older_schema_is_upgraded_once_and_what_is_in_it_stays(server: postgres_server.Shared) -> None:
    url = server.url()
    store = await open_store(url)
    made = await store.create(small("run"))
    await store.close()
    parsed: Any = parse_url(url)
    newer = [await asyncio.to_thread(PostgresDatabase, parsed, (*MIGRATIONS, ADDED)) for _ in range(2)]
    assert await newer[1].read("SELECT version FROM migrations ORDER BY version", {}) == [
        (number,) for number in range(1, len(MIGRATIONS) + 2)
    ]
    assert await newer[1].read("SELECT name FROM objects", {}) == [(made.name,)]
    assert await newer[1].read("SELECT * FROM added", {}) == []
    for database in newer:
        await database.close()
    with pytest.raises(StoreUnavailable, match=r"written by a newer version .*: upgrade cloacina"):
        await open_store(url)


async def test_a_step_that_fails_leaves_the_older_schema_as_it_was(server: postgres_server.Shared) -> None:
    url = server.url()
    await (await open_store(url)).close()
    parsed: Any = parse_url(url)
    with pytest.raises(StoreUnavailable, match="already exists"):
        PostgresDatabase(parsed, (*MIGRATIONS, f"{ADDED}; CREATE TABLE objects (name TEXT)"))
    store = await open_store(url)
    await store.create(small("run"))
    await store.close()
