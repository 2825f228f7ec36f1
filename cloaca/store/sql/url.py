"""What a database URL means. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from cloaca.errors import StoreUnavailable

MEMORY = ":memory:"
SCHEMA = "cloacina"

_SYNCHRONOUS = ("NORMAL", "FULL", "EXTRA")
_MODES = ("rwc", "rw", "ro")

_ALMOST = ("postgresql:", "postgres:", "file:")  # without //: meant as URLs, and no file is called that

ACCEPTED = ":memory:, sqlite:///app.db, a path or postgresql://user@host/database"

_LIBPQ = frozenset(
    {
        "host",
        "hostaddr",
        "port",
        "user",
        "dbname",
        "password",
        "passfile",
        "service",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslrootcert",
        "sslcrl",
        "channel_binding",
        "gssencmode",
        "krbsrvname",
        "connect_timeout",
        "application_name",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "target_session_attrs",
    }
)
"""What the client library of PostgreSQL understands and a store has use for."""

_LONGEST_SCHEMA = 63  # bytes; PostgreSQL cuts off the rest, and two tenants would share one
_PASSWORD = re.compile(r"(?<=:)(?!//)[^:?]*(?=@)|(?<=password=)[^&]*")


@dataclass(frozen=True, kw_only=True)
class SqliteUrl:
    """A SQLite database."""

    path: str  # ":memory:" or a file
    mode: str = "rwc"  # rwc: made if it is not there; rw: must be there; ro: read only
    synchronous: str = "NORMAL"
    busy_timeout: float = 30.0  # seconds

    @property
    def memory(self) -> bool:
        """Whether it lives in this process alone."""
        return self.path == MEMORY


@dataclass(frozen=True, kw_only=True)
class PostgresUrl:
    """A schema of a PostgreSQL database."""

    conninfo: str = field(repr=False)  # as the client library takes it, without what is ours
    where: str  # the same for people: no password
    schema: str = SCHEMA  # made if it is not there
    lock_timeout: float = 30.0  # seconds until a write that gets no turn fails
    pool_size: int = 4  # connections that read; one more writes, one more listens once somebody follows changes


def parse_url(url: str) -> SqliteUrl | PostgresUrl:
    """What ``url`` means: ``:memory:``, ``sqlite://``, ``sqlite:///app.db`` (in the working folder),
    ``sqlite:////srv/app.db`` (absolute), ``sqlite://data/app.db`` (relative), a bare path, each also with options, or
    ``postgresql://user:password@host:port/database?schema=name``.

    ``sqlite:///srv/app.db`` is refused: to some it is an absolute path, to others a relative one (docs/decisions/0045).

    Raises StoreUnavailable, which says what is wrong and what is accepted.
    """
    if not isinstance(url, str) or not url.strip():
        raise StoreUnavailable(f"{url!r} is no database URL: write {ACCEPTED}")
    scheme, found, rest = url.partition("://")
    if not found:
        if url.startswith(_ALMOST):
            raise StoreUnavailable(f"{without_password(url)!r} is no database URL: write {ACCEPTED}")
        rest = url.removeprefix("sqlite:")
    elif scheme in ("postgresql", "postgres"):
        return _postgres(rest)
    elif scheme != "sqlite":
        raise StoreUnavailable(f"{without_password(url)!r}: {scheme} is unknown; write {ACCEPTED}")
    path, _, query = rest.partition("?")
    if rest != url:  # a bare path is taken as it stands
        path = os.fsdecode(unquote_to_bytes(path.encode("utf-8", "surrogateescape")))  # also where it is not UTF-8
    if path.startswith("/") and found:
        path = path[1:]  # sqlite:///app.db is relative, sqlite:////srv/app.db absolute
        first, folders, _ = path.partition("/")
        if folders and first not in ("", ".", ".."):
            plain = url.removeprefix("sqlite:///")
            raise StoreUnavailable(
                f"{url!r} can be read in two ways: write sqlite:////{plain} for the file /{path}, or "
                f"sqlite://{plain} for the file {path} in the working folder"
            )
    return SqliteUrl(path=path or MEMORY, **_sqlite_options(url, query))


def with_schema(url: str, schema: str) -> str:
    """``url`` with another schema. Raises StoreUnavailable where it is none of PostgreSQL's."""
    if not isinstance(parse_url(url), PostgresUrl):
        raise StoreUnavailable(
            f"{url!r} is a SQLite database, which has no schemas: give each tenant a file of its own, or use a "
            "postgresql:// URL"
        )
    base, _, query = url.partition("?")
    options = [part for part in query.split("&") if part and not part.startswith("schema=")]
    return f"{base}?{'&'.join([*options, f'schema={schema}'])}"


def with_pool_size(url: str, connections: int) -> str:
    """``url`` with that many connections, where it is one of PostgreSQL's and does not say how many itself."""
    if not isinstance(url, str) or not url.startswith(("postgresql://", "postgres://")):
        return url
    _, found, query = url.partition("?")
    if any(part.startswith("pool_size=") for part in query.split("&")):
        return url
    return f"{url}{'&' if query else '' if found else '?'}pool_size={connections}"


def without_password(url: str) -> str:
    """``url`` as it may be shown and logged."""
    return _PASSWORD.sub("***", url)


def _sqlite_options(url: str, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        match key.removeprefix("_"):
            case "mode" if value in _MODES:
                options["mode"] = value
            case "journal_mode" | "journal" if value.upper() == "WAL":
                pass  # ours is always WAL
            case "synchronous" | "sync" if value.upper() in _SYNCHRONOUS:
                options["synchronous"] = value.upper()
            case "busy_timeout" | "timeout" if value.isdigit():
                options["busy_timeout"] = int(value) / 1000
            case "foreign_keys" | "fk":
                pass  # the schema has none
            case _:
                raise StoreUnavailable(
                    f"{url!r}: unknown option {key}={value}; known: mode={'|'.join(_MODES)}, _journal_mode=WAL, "
                    f"_synchronous={'|'.join(_SYNCHRONOUS)}, _busy_timeout=<milliseconds>"
                )
    return options


def _refuse_bare_password(base: str, query: str) -> None:
    """Raise StoreUnavailable for a password that is not percent-encoded: the client library would take a part of it
    for the server's name, and show it in its message."""
    login, at, _ = base.rpartition("@")
    if (at and any(sign in login for sign in "/@")) or (not at and "@" in query and "=" not in query.partition("@")[0]):
        raise StoreUnavailable(
            "the password of a postgresql:// URL must be percent-encoded: write %2F for /, %40 for @, %3F for ?, as "
            "urllib.parse.quote(password, safe='') does"
        )


def _postgres(rest: str) -> PostgresUrl:
    base, _, query = rest.partition("?")
    _refuse_bare_password(base, query)
    where = without_password(f"postgresql://{base}")
    options: dict[str, Any] = {}
    passed: list[str] = []
    try:
        pairs = [(part.partition("=")[0], part) for part in query.split("&") if part]
        values: Mapping[str, str] = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise StoreUnavailable(f"{where}: its options are not written key=value&key=value: {error}") from error
    for key, part in pairs:
        value = values[key]
        match key:
            case "schema" if value and len(value.encode()) <= _LONGEST_SCHEMA and "\0" not in value:
                options["schema"] = value
            case "lock_timeout" if value.isdigit() and int(value):
                options["lock_timeout"] = int(value) / 1000
            case "pool_size" if value.isdigit() and int(value):
                options["pool_size"] = int(value)
            case _ if key in _LIBPQ:
                passed.append(part)
            case _:
                raise StoreUnavailable(
                    f"{where}: unknown option {without_password(part)}; known: schema=<up to {_LONGEST_SCHEMA} bytes>, "
                    f"lock_timeout=<milliseconds>, pool_size=<connections>, {', '.join(sorted(_LIBPQ))}"
                )
    return PostgresUrl(conninfo=f"postgresql://{base}{'?' if passed else ''}{'&'.join(passed)}", where=where, **options)
