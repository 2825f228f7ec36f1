"""The statements in .sql files."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator

import pytest

from cloaca.store.sql.sqlite import MIGRATIONS
from cloaca.store.sql.statements import named, read
from cloaca.store.sql.transactions import WritingConnection

STATEMENTS = named(read("queries.sql")) | named(read("sqlite.sql"))


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(WritingConnection(":memory:")) as connection:
        for text in MIGRATIONS:
            connection.executescript(text)
        yield connection


def filled(statement: str) -> str:
    """With one label, where it is for labels."""
    chosen = STATEMENTS["has_label"]
    return statement.replace("{chosen}", chosen).replace("{number}", "0")


def plan(database: sqlite3.Connection, name: str) -> list[str]:
    statement = filled(STATEMENTS[name])
    parameters = dict.fromkeys(re.findall(r":(\w+)", statement), "x")
    return [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_fits_the_schema(database: sqlite3.Connection, name: str) -> None:
    plan(database, name)


def test_comments_and_names_are_no_part_of_a_statement() -> None:
    assert named("-- about the file\n\n-- one --\n-- why\nSELECT 1;\n\n-- two --\nSELECT\n  2;\n") == {
        "one": "SELECT 1",
        "two": "SELECT\n  2",
    }


@pytest.mark.parametrize(
    "name",
    [
        "get",
        "list",
        "list_by_labels",
        "is_taken",
        "exists",
        "update",
        "write_status",
        "record",
        "next_resource_version",
        "last_resource_version",
        "with_everything_owned",
        "delete",
        "changes",
        "get_archive",
    ],
)
def test_what_is_asked_often_reads_no_whole_table(database: sqlite3.Connection, name: str) -> None:
    assert read_whole(plan(database, name)) == []


def read_whole(steps: list[str]) -> list[str]:
    """The steps that read a whole table."""
    small = ("SCAN doomed", "SCAN chosen", "SCAN CONSTANT ROW", "SCAN json_each")
    return [step for step in steps if step.startswith("SCAN ") and "USING" not in step and not step.startswith(small)]


def test_what_the_triggers_do_reads_no_whole_table(database: sqlite3.Connection) -> None:
    bodies = [row[0] for row in database.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
    statements = [part for body in bodies for part in re.split(r"BEGIN|;", body)[1:-1] if part.strip()]
    assert len(statements) >= 6
    for statement in statements:
        asked = re.sub(r"(NEW|OLD)\.(\w+)", r":\2", statement.removesuffix("END"))
        names = dict.fromkeys(re.findall(r":(\w+)", asked), "[]")
        assert read_whole([row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {asked}", names)]) == []


def test_a_selector_looks_its_labels_up_before_it_reads_objects(database: sqlite3.Connection) -> None:
    steps = plan(database, "list_by_labels")
    labels, objects = (next(n for n, step in enumerate(steps) if table in step) for table in ("labels", "objects"))
    assert labels < objects
