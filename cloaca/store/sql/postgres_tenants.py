"""Make and remove tenants of a PostgreSQL database: a role that can log in, and a schema that only it may use.

A role and a schema that were not made here are never changed: each bears a mark (its comment) that names the other.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg import conninfo, sql

from cloaca.errors import StoreError, StoreUnavailable, TenantError
from cloaca.store.sql.postgres_session import Psycopg, connect, execute, explained
from cloaca.store.sql.statements import named, read
from cloaca.store.sql.url import PostgresUrl

SQL = named(read("tenants.sql"))

_NOT_THE_TENANTS = ("user", "password", "dbname", "passfile", "service", "sslcert", "sslkey", "sslpassword")


def database_of(url: PostgresUrl) -> str:
    """The name of the database that ``url`` names; empty: it names none. Raises TenantError for a malformed URL."""
    try:
        return str(conninfo.conninfo_to_dict(url.conninfo).get("dbname") or "")
    except psycopg.ProgrammingError as error:
        raise TenantError(
            f"{url.where}: {' '.join(str(error).split())}: write postgresql://user@host/database"
        ) from None


def connection_string(url: PostgresUrl, role: str, password: str) -> str:
    """``url`` for ``role``: the same server and database, and none of the administrator's own credentials."""
    base, _, query = url.conninfo.partition("?")
    place = base.partition("://")[2]
    host = place.partition("/")[0].rpartition("@")[2]
    options = [(key, value) for key, value in parse_qsl(query) if key not in _NOT_THE_TENANTS]
    login = f"{quote(role, safe='')}:{quote(password, safe='')}"
    tail = f"?{urlencode(options, quote_via=quote)}" if options else ""
    return f"postgresql://{login}@{host}/{quote(database_of(url), safe='')}{tail}"


def create(url: PostgresUrl, schema: str, role: str, password: str) -> None:
    """Make ``role`` and its ``schema``, or set the password of a tenant that is there. All or nothing.

    The server is sent a SCRAM verifier, never the password. Raises TenantError, which says what is in the way.
    """
    try:
        with connect(url) as connection, connection.transaction():
            execute(connection, SQL["turn"], {})
            there = _check_role(connection, schema, role)
            owner = _check_schema(connection, schema, role)
            if owner is not None and owner != role:
                raise TenantError(f"the schema {schema!r} is what is left of a tenant: remove that tenant first")
            verb = "ALTER" if there else "CREATE"
            verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
            _do(
                connection,
                f"{verb} ROLE {{role}} LOGIN PASSWORD {{verifier}}",
                role=role,
                verifier=sql.Literal(verifier),
            )
            _do(
                connection,
                "COMMENT ON ROLE {role} IS {mark}",
                role=role,
                mark=sql.Literal(_mark_of_role(connection, schema)),
            )
            if owner is None:
                with _as_member(connection, role):
                    _do(connection, "CREATE SCHEMA {schema} AUTHORIZATION {role}", schema=schema, role=role)
                    _do(
                        connection, "COMMENT ON SCHEMA {schema} IS {mark}", schema=schema, mark=sql.Literal(_mark(role))
                    )
            database = connection.info.dbname
            _do(connection, "GRANT CONNECT ON DATABASE {database} TO {role}", database=database, role=role)
            _do(
                connection,
                "ALTER ROLE {role} IN DATABASE {database} SET search_path = {schema}",
                role=role,
                database=database,
                schema=schema,
            )
            _keep_apart(connection, schema, role)
    except psycopg.Error as error:
        raise TenantError(str(explained(error, url))) from None  # its text may show the statement
    except StoreUnavailable as error:
        raise TenantError(str(error)) from error


def remove(url: PostgresUrl, schema: str, role: str) -> None:
    """Remove ``schema`` with all that is in it, and ``role``. What is gone already is fine.

    Sessions of the role are ended first. Raises TenantError, which says what is in the way.
    """
    try:
        with connect(url) as connection:
            with connection.transaction():
                execute(connection, SQL["turn"], {})
                there = _check_role(connection, schema, role)
                _check_schema(connection, schema, role)
                if there:
                    _do(connection, "ALTER ROLE {role} NOLOGIN", role=role)
            if there:
                with connection.transaction(), _as_member(connection, role):
                    execute(connection, SQL["end_sessions"], {"role": role})
            with connection.transaction():
                execute(connection, SQL["turn"], {})
                there = _check_role(connection, schema, role)
                owner = _check_schema(connection, schema, role)
                if there:
                    with _as_member(connection, role):
                        if owner is not None:
                            _do(connection, "DROP SCHEMA {schema} CASCADE", schema=schema)
                        _do(connection, "DROP OWNED BY {role}", role=role)
                    _do(connection, "DROP ROLE {role}", role=role)
                elif owner is not None:
                    _do(connection, "DROP SCHEMA {schema} CASCADE", schema=schema)
    except psycopg.Error as error:
        raise TenantError(str(explained(error, url))) from error
    except StoreError as error:
        raise TenantError(str(error)) from error


def _mark_of_role(connection: Psycopg, schema: str) -> str:
    return f"Cloacina tenant: schema {schema} of database {connection.info.dbname}"


def _mark(role: str) -> str:
    return f"Cloacina tenant: role {role}"


def _check_role(connection: Psycopg, schema: str, role: str) -> bool:
    """Whether the role is there. Raises TenantError unless it is this tenant's."""
    row = execute(connection, SQL["role"], {"role": role}).fetchone()
    if row is None:
        return False
    mark, mighty = row
    if mark != _mark_of_role(connection, schema) or mighty:
        raise TenantError(
            f"the role {role!r} exists, and was not made for the schema {schema!r} of this database: choose another "
            "username, or remove the role if nobody needs it"
        )
    return True


def _check_schema(connection: Psycopg, schema: str, role: str) -> str | None:
    """The owner of the schema; None: there is none. Raises TenantError unless it is this tenant's."""
    row = execute(connection, SQL["schema"], {"schema": schema}).fetchone()
    if row is None:
        return None
    owner, mark = row
    if owner != role and mark != _mark(role):
        raise TenantError(f"the schema {schema!r} exists, and belongs to {owner!r}: choose another schema_name")
    return str(owner)


def _keep_apart(connection: Psycopg, schema: str, role: str) -> None:
    """Take from everybody what would let a tenant reach beyond its schema. Raises TenantError where that fails."""
    database = connection.info.dbname
    in_database, in_public = _everybody_may(connection)
    with _tolerant(connection):
        if in_database:
            _do(connection, "REVOKE CREATE ON DATABASE {database} FROM PUBLIC", database=database)
        if in_public:
            _do(connection, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    in_database, in_public = _everybody_may(connection)
    wanted = [f"REVOKE CREATE ON DATABASE {database} FROM PUBLIC"] if in_database else []
    wanted += ["REVOKE CREATE ON SCHEMA public FROM PUBLIC"] if in_public else []
    seen = execute(connection, SQL["sees"], {"schema": schema, "role": role}).fetchall()
    wanted += [f"REVOKE ALL ON SCHEMA {name} FROM PUBLIC" for (name,) in seen]
    if wanted:
        raise TenantError(
            f"the role {role!r} could reach beyond its schema, since everybody may: let an owner of this database run "
            f"{'; '.join(wanted)}"
        )


def _everybody_may(connection: Psycopg) -> tuple[bool, bool]:
    row: Any = execute(connection, SQL["everybody_may"], {}).fetchone()
    return row[0], row[1]


class _tolerant:  # noqa: N801  # read as `with _tolerant(connection):`
    """A part of a transaction that may fail for want of privileges: then nothing of it was done."""

    def __init__(self, connection: Psycopg) -> None:
        self._savepoint = connection.transaction()

    def __enter__(self) -> None:
        self._savepoint.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._savepoint.__exit__(kind, error, traceback)
        return isinstance(error, psycopg.errors.InsufficientPrivilege)


class _as_member:  # noqa: N801  # read as `with _as_member(connection, role):`
    """With the rights of ``role`` too, which an administrator who is not a superuser lacks."""

    def __init__(self, connection: Psycopg, role: str) -> None:
        self._connection = connection
        self._role = role
        row: Any = execute(connection, SQL["is_superuser"], {}).fetchone()
        self._needed = not row[0]

    def __enter__(self) -> None:
        if self._needed:
            _do(self._connection, "GRANT {role} TO CURRENT_USER", role=self._role)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._needed and kind is None:  # else the transaction is rolled back
            _do(self._connection, "REVOKE {role} FROM CURRENT_USER", role=self._role)


def _do(connection: Psycopg, statement: str, **parts: Any) -> None:
    """Run a statement that takes no parameters: a part that is a string is quoted as an identifier."""
    composed = {key: part if isinstance(part, sql.Composable) else sql.Identifier(part) for key, part in parts.items()}
    connection.execute(sql.SQL(statement).format(**composed))
