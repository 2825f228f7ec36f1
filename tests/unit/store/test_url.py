"""Database URLs, and what they mean."""

from __future__ import annotations

import pytest

from cloaca.errors import StoreUnavailable
from cloaca.store.sql.url import SqliteUrl, parse_url


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
        ("sqlite:////var/lib/app.db", SqliteUrl(path="/var/lib/app.db")),
        ("sqlite://app.db", SqliteUrl(path="app.db")),
        ("sqlite:///a%20b.db", SqliteUrl(path="a b.db")),
        (
            "sqlite://app.db?mode=rwc&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000",
            SqliteUrl(path="app.db", mode="rwc", synchronous="FULL", busy_timeout=5.0),
        ),
    ],
)
def test_every_usual_spelling_is_understood(url: str, meaning: SqliteUrl) -> None:
    assert parse_url(url) == meaning


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is no database URL"),
        ("postgresql://localhost/db", "not supported"),
        ("mysql://localhost/db", "unknown"),
        ("sqlite:///app.db?color=red", "unknown option color=red; known: mode="),
        ("sqlite:///app.db?mode=memory", "unknown option mode=memory"),
        ("sqlite:///app.db?_synchronous=OFF", "unknown option _synchronous=OFF"),
    ],
)
def test_anything_else_is_an_error_that_says_what_is_accepted(url: str, words: str) -> None:
    with pytest.raises(StoreUnavailable, match=words):
        parse_url(url)
