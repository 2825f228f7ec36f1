"""How writes share commits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloaca.errors import Conflict, StoreUnavailable
from cloaca.store.sql.database import OneStatement
from cloaca.store.sql.filelock import FileLock
from cloaca.store.sql.transactions import Transactions, WritingConnection


class Setting:
    """Transactions on a table of numbers, and how often they told of a commit."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.path = folder / "numbers.db"
        connection = WritingConnection(self.path, isolation_level=None, check_same_thread=False, timeout=0.002)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        self.told = 0
        self.transactions = Transactions(
            connection,
            file=FileLock(f"{self.path}.lock"),
            patience=patience,
            committed=self._tell,
            explain=lambda error: StoreUnavailable(str(error)),
        )

    def _tell(self) -> None:
        self.told += 1

    def numbers(self) -> list[int]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]

    async def together(self, *works: Callable[[Any], Any]) -> list[Any]:
        """What becomes of ``works`` that all arrive while somebody else writes."""
        with self.transactions.lock:
            tasks = [asyncio.ensure_future(self.transactions.run(work)) for work in works]
            await asyncio.sleep(0.05)
        return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path, patience=0.3)
    yield made
    made.transactions.close()


def add(number: int) -> Callable[[Any], int]:
    def work(connection: Any) -> int:
        connection.execute("INSERT INTO numbers VALUES (:n)", {"n": number})
        return number

    return work


def refuse(connection: Any) -> None:
    raise Conflict("no")


def break_down(connection: Any) -> None:
    add(100)(connection)
    raise ZeroDivisionError


async def test_a_write_that_nobody_is_in_the_way_of_is_made_at_once(setting: Setting) -> None:
    write = setting.transactions.run(add(1))
    with pytest.raises(StopIteration):
        write.send(None)  # it never waits for the loop
    assert (setting.numbers(), setting.told) == ([1], 1)


async def test_one_statement_gives_out_a_version_or_none_where_it_changes_nothing(setting: Setting) -> None:
    insert = OneStatement("INSERT INTO numbers VALUES (given_out(:n)) ON CONFLICT DO NOTHING", {"n": 7})
    assert await setting.transactions.run(insert) == 7
    assert await setting.transactions.run(insert) is None
    assert await setting.together(
        add(1), insert, OneStatement("UPDATE numbers SET n = given_out(8) WHERE n = 7", {})
    ) == [
        1,
        None,
        8,
    ]
    assert (setting.numbers(), setting.told) == ([1, 8], 2)


async def test_writes_that_gather_share_one_commit(setting: Setting) -> None:
    assert await setting.together(add(1), add(2), add(3)) == [1, 2, 3]
    assert setting.numbers() == [1, 2, 3]
    assert setting.told < 3  # the first may have been taken alone


@pytest.mark.parametrize(
    ("faulty", "error"),
    [
        pytest.param(refuse, Conflict, id="a refusal"),
        pytest.param(break_down, ZeroDivisionError, id="a fault of ours"),
        pytest.param(add(1), StoreUnavailable, id="a fault that the database finds"),
    ],
)
async def test_a_write_that_fails_fails_alone(
    setting: Setting, faulty: Callable[[Any], Any], error: type[Exception]
) -> None:
    first, second, third, fourth = await setting.together(add(1), faulty, add(2), add(3))
    assert (first, third, fourth) == (1, 2, 3)
    assert isinstance(second, error)
    assert setting.numbers() == [1, 2, 3]
    assert await setting.together(add(4)) == [4]  # the writer thread lives


async def test_a_write_that_changes_nothing_wakes_nobody(setting: Setting) -> None:
    await setting.transactions.run(lambda connection: connection.execute("SELECT 1", {}).fetchone())
    with pytest.raises(Conflict):
        await setting.transactions.run(refuse)
    assert setting.told == 0


async def test_a_write_that_was_cancelled_in_the_queue_is_not_made(setting: Setting) -> None:
    with setting.transactions.lock:
        cancelled, kept = (asyncio.ensure_future(setting.transactions.run(add(number))) for number in (1, 2))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        await asyncio.wait([cancelled])
    assert await kept == 2
    assert setting.numbers() == [2]


async def test_while_a_foreign_program_writes_the_loop_goes_on_and_the_write_is_made_after_it(setting: Setting) -> None:
    with contextlib.closing(sqlite3.connect(setting.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        write = asyncio.ensure_future(setting.transactions.run(add(1)))
        for _ in range(10):
            await asyncio.sleep(0.01)
        assert not write.done()
        foreign.execute("COMMIT")
    assert await write == 1


@pytest.mark.parametrize("holder", ["a foreign program", "a process of ours"])
async def test_who_gets_no_turn_is_told_so_in_the_end(setting: Setting, holder: str) -> None:
    with contextlib.ExitStack() as held:
        if holder == "a foreign program":
            foreign = held.enter_context(contextlib.closing(sqlite3.connect(setting.path, isolation_level=None)))
            foreign.execute("BEGIN IMMEDIATE")
        else:
            lock = held.enter_context(contextlib.closing(FileLock(f"{setting.path}.lock")))
            assert lock.take()
        with pytest.raises(StoreUnavailable, match=r"locked for 0.3 s"):
            await setting.transactions.run(add(1))
    assert await setting.transactions.run(add(2)) == 2
    assert setting.numbers() == [2]


async def test_what_was_queued_is_written_before_the_end_and_nothing_afterwards(setting: Setting) -> None:
    with setting.transactions.lock:
        writes = [asyncio.ensure_future(setting.transactions.run(add(number))) for number in range(5)]
        await asyncio.sleep(0.05)
    setting.transactions.close()
    assert await asyncio.gather(*writes) == [0, 1, 2, 3, 4]
    with pytest.raises(StoreUnavailable, match="was closed"):
        await setting.transactions.run(add(9))
    assert setting.numbers() == [0, 1, 2, 3, 4]


def test_a_file_lock_excludes_every_other_holder(tmp_path: Path) -> None:
    with (
        contextlib.closing(FileLock(f"{tmp_path}/lock")) as one,
        contextlib.closing(FileLock(f"{tmp_path}/lock")) as two,
    ):
        assert one.take()
        assert not two.take()
        assert not two.wait(0.01)
        one.give()
        assert two.wait(0.01)


def test_where_no_lock_file_can_be_made_everybody_is_let_in(tmp_path: Path) -> None:
    lock = FileLock(f"{tmp_path}/nowhere/lock")
    assert (lock.take(), lock.path) == (True, None)
    lock.give()
    lock.close()
