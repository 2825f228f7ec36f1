"""Which store a home has: the one that somebody named, else the SQLite file in it. Reads a setting, opens nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import quote

from cloaca.errors import StoreUnavailable
from cloaca.home import Home
from cloaca.store.sql.url import PostgresUrl, parse_url, without_password

_ACCEPTED = "name a file, or postgresql://user@host/database"


def store_url(home: Home, named: str | None) -> str:
    """The URL of the home's store, where ``named`` says what a person wrote (None: nothing). A relative file lies in
    the home, whichever folder a program was started in.

    Raises StoreUnavailable for what cannot be the store of a daemon.
    """
    if named is None:
        return file_url(home.database)
    if named.startswith("kubernetes:"):
        raise StoreUnavailable(
            f"{named!r} is a cluster: there the operator takes the place of the daemon; for a daemon {_ACCEPTED}"
        )
    url = parse_url(named)
    if isinstance(url, PostgresUrl):
        return named
    shown = without_password(named)
    if url.memory:
        raise StoreUnavailable(
            f"{shown!r} lives in one process, but the daemon, its runs and the command line share the store: "
            f"{_ACCEPTED}"
        )
    if url.mode == "ro":
        raise StoreUnavailable(f"{shown!r} is opened read-only, but the daemon writes: leave mode=ro out")
    _, found, options = named.partition("?")
    return f"sqlite:///{quote(os.fsencode(home.root / url.path))}{found}{options}"


def file_url(path: Path) -> str:
    """A URL of the SQLite file at ``path``: the path itself, unless it has a ``?``, where the options of one begin."""
    plain = str(path)
    return f"sqlite:///{quote(os.fsencode(path))}" if "?" in plain else plain


def named_store(home: Home) -> str | None:
    """What ``store`` in ``config.toml`` says; None: nothing. Raises StoreUnavailable where that cannot be read."""
    if not home.config.exists():
        return None
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        named = tomllib.loads(home.config.read_text(encoding="utf-8")).get("store")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StoreUnavailable(f"{home.config}: {error}") from error
    if named is not None and (not isinstance(named, str) or not named):
        raise StoreUnavailable(f"{home.config}: store: is {named!r}, but must be a text")
    return named


def drivers_of(url: str) -> tuple[str, ...]:
    """The modules beyond SQLite's that a process imports when it opens the store at ``url``."""
    return ("cloaca.store.sql.postgres",) if isinstance(parse_url(url), PostgresUrl) else ()
