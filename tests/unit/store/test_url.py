"""Database URLs, and what they mean."""

from __future__ import annotations

import pytest

from cloaca.errors import StoreUnavailable
from cloaca.store.sql.url import PostgresUrl, SqliteUrl, parse_url, with_pool_size, with_schema, without_password


@pytest.mark.parametrize(
    ("url", "meaning"),
    [
        (":memory:", SqliteUrl(path=":memory:")),
        ("sqlite://", SqliteUrl(path=":memory:")),
        ("sqlite://:memory:", SqliteUrl(path=":memory:")),
        ("sqlite::memory:", SqliteUrl(path=":memory:")),
        ("app.db", SqliteUrl(path="app.db")),
        ("/var/lib/app.db", SqliteUrl(path="/var/lib/app.db")),
        ("sqlite:///app.db", SqliteUrl(path="app.db")),
        ("sqlite:///./app.db", SqliteUrl(path="./app.db")),
        ("sqlite:///../data/app.db", SqliteUrl(path="../data/app.db")),
        ("sqlite:///:memory:", SqliteUrl(path=":memory:")),
        ("sqlite://data/app.db", SqliteUrl(path="data/app.db")),
        ("sqlite:/srv/app.db", SqliteUrl(path="/srv/app.db")),
        ("sqlite://///srv/app.db", SqliteUrl(path="//srv/app.db")),
        ("sqlite:////var/lib/app.db", SqliteUrl(path="/var/lib/app.db")),
        ("sqlite://app.db", SqliteUrl(path="app.db")),
        ("sqlite:///a%20b.db", SqliteUrl(path="a b.db")),
        ("app.db?mode=ro", SqliteUrl(path="app.db", mode="ro")),
        ("a%20b.db", SqliteUrl(path="a%20b.db")),
        (
            "sqlite://app.db?mode=rwc&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000",
            SqliteUrl(path="app.db", mode="rwc", synchronous="FULL", busy_timeout=5.0),
        ),
    ],
)
def test_every_usual_spelling_is_understood(url: str, meaning: SqliteUrl) -> None:
    assert parse_url(url) == meaning


@pytest.mark.parametrize(
    ("url", "absolute", "relative"),
    [
        ("sqlite:///srv/app.db", "sqlite:////srv/app.db", "sqlite://srv/app.db"),
        ("sqlite:///srv/app.db?mode=rwc", "sqlite:////srv/app.db?mode=rwc", "sqlite://srv/app.db?mode=rwc"),
        ("sqlite:///srv%2Fapp.db", "sqlite:////srv%2Fapp.db", "sqlite://srv%2Fapp.db"),
        ("sqlite:///tmp/", "sqlite:////tmp/", "sqlite://tmp/"),
    ],
)
def test_a_path_with_folders_after_three_slashes_is_refused_with_both_forms_that_are_plain(
    url: str, absolute: str, relative: str
) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        parse_url(url)
    assert f"write {absolute} for the file /" in str(caught.value)
    assert f"or {relative} for the file " in str(caught.value)
    parsed, other = parse_url(absolute), parse_url(relative)
    assert isinstance(parsed, SqliteUrl)
    assert isinstance(other, SqliteUrl)
    assert parsed.path == f"/{other.path}"


@pytest.mark.parametrize(
    ("url", "meaning"),
    [
        (
            "postgresql://localhost/db",
            PostgresUrl(conninfo="postgresql://localhost/db", where="postgresql://localhost/db"),
        ),
        ("postgres:///db", PostgresUrl(conninfo="postgresql:///db", where="postgresql:///db")),
        (
            "postgresql://me:secret@one:5433/db?schema=tenant_a&sslmode=require&lock_timeout=1500&pool_size=2&host=%2Frun",
            PostgresUrl(
                conninfo="postgresql://me:secret@one:5433/db?sslmode=require&host=%2Frun",
                where="postgresql://me:***@one:5433/db",
                schema="tenant_a",
                lock_timeout=1.5,
                pool_size=2,
            ),
        ),
    ],
    ids=["plain", "short", "everything"],
)
def test_options_of_a_store_are_taken_out_and_the_others_passed_on(url: str, meaning: PostgresUrl) -> None:
    assert parse_url(url) == meaning


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/db",
        "postgresql://host/db?user=me&password=secret",
        "postgresql://me:secret@h/d?x=y",
    ],
)
def test_no_password_is_ever_shown(url: str) -> None:
    assert "secret" not in without_password(url)
    assert "***" in without_password(url)
    with pytest.raises(StoreUnavailable) as caught:
        parse_url(f"{url}{'&' if '?' in url else '?'}color=red")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:sec/ret@host/db",
        "postgresql://me:sec@ret@host/db",
        "postgresql://me:sec?ret@host/db",
        "postgresql://me:/sec/ret@/db?host=/run",
    ],
)
def test_a_password_that_is_not_encoded_is_refused_before_the_client_library_shows_it(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="must be percent-encoded: write %2F for /") as caught:
        parse_url(url)
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value)


def test_a_url_gets_another_schema() -> None:
    assert with_schema("postgresql://h/d", "a") == "postgresql://h/d?schema=a"
    assert with_schema("postgresql://h/d?schema=b&sslmode=require", "a") == "postgresql://h/d?sslmode=require&schema=a"
    with pytest.raises(StoreUnavailable, match="which has no schemas: give each tenant a file of its own"):
        with_schema("sqlite:///app.db", "a")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h/d", "postgresql://h/d?pool_size=7"),
        ("postgres://h/d?", "postgres://h/d?pool_size=7"),
        ("postgresql://h/d?schema=a", "postgresql://h/d?schema=a&pool_size=7"),
        ("postgresql://h/d?pool_size=2&schema=a", "postgresql://h/d?pool_size=2&schema=a"),
        ("sqlite:///app.db", "sqlite:///app.db"),
        (":memory:", ":memory:"),
    ],
)
def test_a_url_of_postgresql_gets_a_pool_size_unless_it_has_one(url: str, expected: str) -> None:
    assert with_pool_size(url, 7) == expected
    assert parse_url(expected)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is no database URL"),
        ("postgresql:/localhost/db", "is no database URL: write :memory:"),
        ("file:app.db?mode=ro", "is no database URL: write :memory:"),
        ("app.db?color=red", "unknown option color=red; known: mode="),
        ("mysql://localhost/db", "mysql is unknown; write :memory:"),
        ("mysql://me:secret@localhost/db", r"mysql://me:\*\*\*@localhost"),
        ("postgresql://localhost/db?color=red", "unknown option color=red; known: schema="),
        ("postgresql://localhost/db?schema=", "unknown option schema="),
        (f"postgresql://localhost/db?schema={'x' * 64}", "up to 63 bytes"),
        ("postgresql://localhost/db?lock_timeout=0", "unknown option lock_timeout=0"),
        ("postgresql://localhost/db?pool_size=many", "unknown option pool_size=many"),
        ("postgresql://localhost/db?schema", "not written key=value"),
        ("postgresql://localhost/db?options=-c%20fsync=off", "unknown option options="),
        ("sqlite:///app.db?color=red", "unknown option color=red; known: mode="),
        ("sqlite:///app.db?mode=memory", "unknown option mode=memory"),
        ("sqlite:///app.db?_synchronous=OFF", "unknown option _synchronous=OFF"),
    ],
)
def test_anything_else_is_an_error_that_says_what_is_accepted(url: str, words: str) -> None:
    with pytest.raises(StoreUnavailable, match=words):
        parse_url(url)
