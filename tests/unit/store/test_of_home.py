"""Which store a home has, and what cannot be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloaca.errors import StoreUnavailable
from cloaca.home import Home
from cloaca.store.of_home import drivers_of, named_store, store_url
from cloaca.store.sql.url import SqliteUrl, parse_url

HOME = Home(Path("/homes/of it"))


@pytest.mark.parametrize(
    ("named", "path"),
    [
        pytest.param(None, "/homes/of it/cloacina.db", id="nothing named"),
        pytest.param("other.db", "/homes/of it/other.db", id="a relative path lies in the home"),
        pytest.param("sqlite:///other.db", "/homes/of it/other.db", id="a relative URL too"),
        pytest.param("/data/runs.db", "/data/runs.db", id="an absolute path"),
        pytest.param("sqlite:////data/runs.db?_busy_timeout=1000", "/data/runs.db", id="an absolute URL"),
    ],
)
def test_a_file_is_found_from_every_folder(named: str | None, path: str) -> None:
    url = parse_url(store_url(HOME, named))
    assert isinstance(url, SqliteUrl)
    assert (url.path, url.busy_timeout) == (path, 1.0 if named and "busy" in named else 30.0)
    assert drivers_of(store_url(HOME, named)) == ()


ODD = ["a?b", "a#b", "a%41b", "a b", "é", "new\nline", "not-utf-8-\udcff"]


@pytest.mark.parametrize("folder", ODD, ids=ascii)
@pytest.mark.parametrize("named", [None, "other.db"])
def test_the_home_may_have_any_name(folder: str, named: str | None) -> None:
    url = parse_url(store_url(Home(Path("/homes") / folder), named))
    assert isinstance(url, SqliteUrl)
    assert url.path == f"/homes/{folder}/{named or 'cloacina.db'}"


def test_postgresql_is_taken_as_it_was_written() -> None:
    url = "postgresql://me:secret@host/db?schema=tenant"
    assert store_url(HOME, url) == url
    assert drivers_of(url) == ("cloaca.store.sql.postgres",)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (":memory:", "':memory:' lives in one process, but the daemon, its runs and the command line share the store"),
        ("sqlite://", "'sqlite://' lives in one process"),
        ("kubernetes:", "'kubernetes:' is a cluster: there the operator takes the place of the daemon"),
        ("runs.db?mode=ro", "'runs.db?mode=ro' is opened read-only, but the daemon writes: leave mode=ro out"),
        ("mysql://host/db", "'mysql://host/db': mysql is unknown; write :memory:"),
        ("postgresql://me@host/db?colour=red", "unknown option colour=red"),
    ],
)
def test_what_cannot_be_the_store_of_a_daemon_is_refused(named: str, words: str) -> None:
    with pytest.raises(StoreUnavailable) as refusal:
        store_url(HOME, named)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [("", None), ("max_runs = 3\n", None), ('store = "other.db"\n', "other.db")],
    ids=["empty", "something else", "named"],
)
def test_the_settings_of_a_home_name_its_store(tmp_path: Path, text: str, named: str | None) -> None:
    home = Home(tmp_path)
    assert named_store(home) is None
    home.config.write_text(text)
    assert named_store(home) == named


@pytest.mark.parametrize(
    ("text", "words"),
    [("store = 3\n", "store: is 3, but must be a text"), ("store = ", "Invalid value")],
    ids=["no text", "no TOML"],
)
def test_settings_that_cannot_be_read_are_named(tmp_path: Path, text: str, words: str) -> None:
    home = Home(tmp_path)
    home.config.write_text(text)
    with pytest.raises(StoreUnavailable) as refusal:
        named_store(home)
    assert str(refusal.value).startswith(f"{home.config}: {words}")
