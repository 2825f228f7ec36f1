"""Administration of tenants: each has a PostgreSQL role and a schema of its own, and sees nothing of the others."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

from cloaca.errors import StoreUnavailable, TenantError
from cloaca.store.sql.url import PostgresUrl, parse_url, without_password

_NAME = re.compile(r"[A-Za-z0-9_]{1,63}")
_TAKEN = frozenset({"public", "none", "information_schema"})
_PASSWORD_BYTES = 24


@dataclass(frozen=True)
class TenantConfig:
    """A tenant that is to be made.

    Args:
        schema_name: the schema that its runs will live in.
        username: the role that it logs in as.
        password: of that role; None: one is generated. No ``repr`` shows it.

    >>> TenantConfig("acme", "acme_user", "secret")
    TenantConfig(schema_name='acme', username='acme_user')
    """

    schema_name: str
    username: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class TenantCredentials:
    """What a tenant logs in with; ``DefaultRunner.with_schema`` takes its connection string and its schema name.

    >>> TenantCredentials("acme_user", "secret", "acme", "postgresql://acme_user:secret@db/workflows")
    TenantCredentials(username='acme_user', schema_name='acme', connection_string='postgresql://acme_user:***@db/workflows')
    """

    username: str
    password: str
    schema_name: str
    connection_string: str

    def __repr__(self) -> str:
        return (
            f"TenantCredentials(username={self.username!r}, schema_name={self.schema_name!r}, "
            f"connection_string={without_password(self.connection_string)!r})"
        )


class DatabaseAdmin:
    """Makes and removes tenants of one PostgreSQL database. Thread-safe; it connects for each call.

    Args:
        database_url: ``postgresql://user@host/database`` of a role that may create roles and schemas.

    Raises:
        TenantError (a RuntimeError): it is not a PostgreSQL URL, is malformed, or names no database.

    >>> DatabaseAdmin("sqlite:///app.db")
    Traceback (most recent call last):
    cloaca.errors.TenantError: 'sqlite:///app.db' is not a PostgreSQL URL, and only PostgreSQL has tenants: write postgresql://user@host/database
    """

    def __init__(self, database_url: str) -> None:
        try:
            parsed = parse_url(database_url)
        except StoreUnavailable as error:
            raise TenantError(str(error)) from None
        if not isinstance(parsed, PostgresUrl):
            raise TenantError(
                f"{database_url!r} is not a PostgreSQL URL, and only PostgreSQL has tenants: write "
                "postgresql://user@host/database"
            )
        try:
            from cloaca.store.sql import postgres_tenants  # an extra, which not everybody has
        except ImportError as missing:
            raise TenantError(
                f"PostgreSQL needs the package psycopg ({missing}): run pip install 'cloacina[postgres]'"
            ) from missing
        if not postgres_tenants.database_of(parsed):
            raise TenantError(f"{parsed.where} names no database: write postgresql://user@host/database")
        self._url = parsed

    def create_tenant(self, config: TenantConfig) -> TenantCredentials:
        """Make the role and the schema of ``config``, all or nothing.

        For a tenant that is there already it sets the password, given or generated, and changes nothing else.
        ``CREATE`` on the database and on its schema ``public`` is taken from everybody who has no right of its own.

        Raises:
            TenantError (a RuntimeError): "Failed to create tenant", and why; then nothing was changed.

        >>> DatabaseAdmin("postgresql://localhost/workflows").create_tenant(TenantConfig("public", "acme"))
        Traceback (most recent call last):
        cloaca.errors.TenantError: Failed to create tenant: the schema 'public' is PostgreSQL's own: choose another name
        """
        from cloaca.store.sql import postgres_tenants

        try:
            schema, role = _checked("schema", config.schema_name), _checked("role", config.username)
            password = _checked_password(config.password) or secrets.token_urlsafe(_PASSWORD_BYTES)
            postgres_tenants.create(self._url, schema, role, password)
        except TenantError as error:
            raise TenantError(f"Failed to create tenant: {error}") from error.__cause__
        login = postgres_tenants.connection_string(self._url, role, password)
        return TenantCredentials(username=role, password=password, schema_name=schema, connection_string=login)

    def remove_tenant(self, schema_name: str, username: str) -> None:
        """Remove the schema with everything in it, and the role, after its sessions were ended. Idempotent.

        Raises:
            TenantError (a RuntimeError): "Failed to remove tenant", and why. A schema or role that ``create_tenant``
                did not make is never removed.

        >>> DatabaseAdmin("postgresql://localhost/workflows").remove_tenant("public", "acme")
        Traceback (most recent call last):
        cloaca.errors.TenantError: Failed to remove tenant: the schema 'public' is PostgreSQL's own: choose another name
        """
        from cloaca.store.sql import postgres_tenants

        try:
            postgres_tenants.remove(self._url, _checked("schema", schema_name), _checked("role", username))
        except TenantError as error:
            raise TenantError(f"Failed to remove tenant: {error}") from error.__cause__

    def __repr__(self) -> str:
        return f"DatabaseAdmin({self._url.where!r})"


def _checked(what: str, name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TenantError(
            f"the name of the {what} is {name!r}, but must contain only alphanumeric characters and underscores, at "
            "least one and at most 63"
        )
    if name.lower().startswith("pg_") or name.lower() in _TAKEN:
        raise TenantError(f"the {what} {name!r} is PostgreSQL's own: choose another name")
    return name


def _checked_password(password: object) -> str:
    if password is not None and (not isinstance(password, str) or "\0" in password):
        raise TenantError("the password must be a string without a NUL character, or None: then one is generated")
    return password or ""
