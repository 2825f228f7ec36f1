"""A connection to PostgreSQL, made when it is needed, and what its errors mean to people. Knows no transaction."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import conninfo

from cloaca.errors import StoreUnavailable
from cloaca.store.sql.statements import named, read
from cloaca.store.sql.url import PostgresUrl

SQL = named(read("postgres.sql"))

_OLDEST = 13  # the first with pg_current_xact_id
_DEFAULTS = {  # a server that fell silent is given up after a minute, not after hours
    "application_name": "cloacina",
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]\w*)")

Psycopg = psycopg.Connection[tuple[Any, ...]]


class Session:
    """One connection, made anew once it broke. One thread at a time may use it."""

    def __init__(self, url: PostgresUrl) -> None:
        self._url = url
        self._connection: Psycopg | None = None  # None: not made yet, or given up

    def connection(self) -> Psycopg:
        """The connection. Raises StoreUnavailable where none can be made."""
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url)
        return self._connection

    @property
    def process(self) -> int | None:
        """The server's process that serves it; None: there is no connection."""
        connection = self._connection
        return None if connection is None or connection.closed else connection.info.backend_pid

    def discard(self) -> None:
        """Let go of the connection; the next call makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def connect(url: PostgresUrl) -> Psycopg:
    """A connection whose tables are those of the schema. Raises StoreUnavailable."""
    try:
        given = conninfo.conninfo_to_dict(url.conninfo)
    except psycopg.ProgrammingError as error:
        raise StoreUnavailable(f"{url.where}: {_text(error)}: write postgresql://user@host/database") from error
    try:
        text = conninfo.make_conninfo(url.conninfo, **{**_DEFAULTS, **given, "client_encoding": "UTF8"})
        connection = psycopg.connect(text, autocommit=True)
    except psycopg.Error as error:
        raise explained(error, url) from error
    try:
        _prepare(connection, url)
    except psycopg.Error as error:
        connection.close()
        raise explained(error, url) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: Psycopg, url: PostgresUrl) -> None:
    version = connection.info.server_version // 10_000
    if version < _OLDEST:
        raise StoreUnavailable(f"{url.where} is PostgreSQL {version}: {_OLDEST} or newer is needed")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"{url.where} keeps texts as {encoding}: make a database that can keep all, with createdb --encoding UTF8 "
            "--template template0"
        )
    execute(
        connection,
        SQL["settings"],
        {
            "search_path": quoted(url.schema),
            "lock_timeout": f"{url.lock_timeout * 1000:.0f}ms",
            "idle_timeout": idle_timeout(url),
        },
    )


def idle_timeout(url: PostgresUrl) -> str:
    """How long a transaction may wait for its client: shorter than others wait for its end."""
    return f"{url.lock_timeout * 500:.0f}ms"


def execute(connection: Psycopg, statement: str, parameters: Mapping[str, Any]) -> psycopg.Cursor[tuple[Any, ...]]:
    """Run one statement, whose parameters are written ``:name``."""
    return connection.execute(_translated(statement), parameters, binary=True)


@functools.lru_cache(maxsize=256)
def _translated(statement: str) -> bytes:
    return _PARAMETER.sub(r"%(\1)s", statement.replace("%", "%%")).encode()


def quoted(name: str) -> str:
    """``name`` as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def explained(error: Exception, url: PostgresUrl) -> StoreUnavailable:
    """What PostgreSQL said, as a sentence that says what to do."""
    text = _text(error)
    state = getattr(error, "sqlstate", None) or ""
    advice = next((advice for clue, advice in _ADVICE if clue == state or clue in text), None)
    result = StoreUnavailable(f"{url.where} (schema {url.schema}): {text}{f': {advice}' if advice else ''}")
    result.__cause__ = error
    return result


def _text(error: Exception) -> str:
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((said or str(error)).split()).rstrip(".") or type(error).__name__


_ADVICE = (
    ("Connection refused", "start the server, or correct host and port"),
    ("No such file or directory", "start the server, or name the folder of its socket as host"),
    ("could not translate host name", "correct the host"),
    ("failed to resolve host", "correct the host"),
    ("timeout expired", "start the server, or correct host and port"),
    ("28P01", "correct user and password"),
    ("password authentication failed", "correct user and password"),
    ("no password supplied", "give one in the URL, in PGPASSWORD or in ~/.pgpass"),
    ("no pg_hba.conf entry", "let this user and host in by a line in the server's pg_hba.conf"),
    ('role "', "correct the user, or make it with createuser"),
    ('database "', "make it with createdb, or name another one"),
    ("42501", "grant it: GRANT CREATE ON DATABASE … TO the user, or make the schema for it beforehand"),
    ("25006", "it takes no writes (a standby, or default_transaction_read_only): name one that does"),
    ("55P03", "another program holds it: end that one"),
    ("53100", "make room on the server; what was written before stands"),
    ("53300", "raise max_connections of the server, or lower pool_size in the URL"),
    ("too many clients", "raise max_connections of the server, or lower pool_size in the URL"),
    ("42P01", "the schema was dropped or changed by somebody else: restore it, or name another one"),
    ("57P01", "the server stops or restarts: try again when it is there"),
    ("57P03", "the server starts or stops: try again when it is there"),
    ("server closed the connection", "the server stops or restarts: try again when it is there"),
    ("connection is lost", "the server stops or restarts: try again when it is there"),
    ("connection was lost", "the server stops or restarts: try again when it is there"),
)
