"""Tenants of a real PostgreSQL server that asks for passwords: each sees nothing of the others."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import postgres_server
import pytest

import cloaca
from cloaca.errors import TenantError

psycopg = pytest.importorskip("psycopg", reason="psycopg is an extra: pip install 'cloacina[postgres]'")

ROOT = "root secret %/:@"
DATABASE = "workflows"


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_server.Server]:
    """One that asks everybody but its superuser for a password, and logs every statement."""
    server = postgres_server.own_server(fsync=False)
    try:
        with psycopg.connect(server.admin, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET log_statement = 'all'")
            connection.execute(f"CREATE DATABASE {DATABASE}")
            connection.execute("CREATE ROLE deputy LOGIN CREATEROLE PASSWORD 'deputy'")
            connection.execute(f"GRANT CREATE ON DATABASE {DATABASE} TO deputy WITH GRANT OPTION")
            rules = "local all tester trust\nlocal all all scram-sha-256\n"
            hba = server.folder / "data" / "pg_hba.conf"
            hba.write_text(rules)
            connection.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        server.remove()


@pytest.fixture
def admin(server: postgres_server.Server) -> Iterator[cloaca.DatabaseAdmin]:
    """Of the superuser; what it made is removed."""
    admin = cloaca.DatabaseAdmin(f"postgresql://tester@/{DATABASE}?host={server.folder}&pool_size=2")
    yield admin
    for name in ("one", "two"):
        admin.remove_tenant(name, f"{name}_user")


def asked(credentials: cloaca.TenantCredentials, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(credentials.connection_string, autocommit=True) as connection:
        return list(connection.execute(statement).fetchall())


def refused(credentials: cloaca.TenantCredentials, statement: str) -> str:
    with (
        psycopg.connect(credentials.connection_string, autocommit=True) as connection,
        pytest.raises(psycopg.Error) as caught,
    ):
        connection.execute(statement)
    return str(caught.value.sqlstate)


def works(credentials: cloaca.TenantCredentials) -> str:
    """The id of a run that the tenant executed."""
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only", retry_attempts=0)(lambda context: None)
    with cloaca.DefaultRunner.with_schema(credentials.connection_string, credentials.schema_name) as runner:
        runner.register_cron_workflow("w", "0 2 * * *", "UTC")
        result = runner.execute("w")
    assert result.status == "Completed"
    return result.execution_id


def test_a_tenant_works_in_its_schema_and_reaches_nothing_of_another(admin: cloaca.DatabaseAdmin) -> None:
    one = admin.create_tenant(cloaca.TenantConfig("one", "one_user"))
    two = admin.create_tenant(cloaca.TenantConfig("two", "two_user", "pass word'\"%/:@é"))

    mine, theirs = works(one), works(two)
    assert asked(one, "SELECT uid FROM objects WHERE kind = 'WorkflowRun'") == [(mine,)]  # its schema is its path
    assert asked(two, "SELECT uid FROM two.objects WHERE kind = 'WorkflowRun'") == [(theirs,)]

    denied = "42501"  # insufficient_privilege
    for statement in (
        "SELECT * FROM two.objects",
        "SELECT * FROM two.archives",
        "INSERT INTO two.migrations (version) VALUES (99)",
        "CREATE TABLE two.mine (x int)",
        "DROP SCHEMA two CASCADE",
        "CREATE TABLE public.mine (x int)",
        "CREATE SCHEMA mine",
        "SET ROLE two_user",
        "ALTER ROLE two_user PASSWORD 'x'",
        "CREATE ROLE another",
        "SELECT * FROM pg_authid",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_terminate_backend(pg_backend_pid()) FROM pg_stat_activity WHERE usename = 'tester'",
    ):
        if "pg_terminate" in statement:
            continue  # ends its own session: what it may do to others is asked below
        assert refused(one, statement) == denied, statement
    with psycopg.connect(two.connection_string, autocommit=True) as theirs_open:
        theirs_open.execute("SELECT 'my secret'")
        (pid,) = theirs_open.execute("SELECT pg_backend_pid()").fetchone()
        assert refused(one, f"SELECT pg_terminate_backend({pid})") == denied
        queries = asked(one, f"SELECT query FROM pg_stat_activity WHERE pid = {pid}")
        assert queries == [("<insufficient privilege>",)]


def test_a_password_is_generated_and_shown_nowhere(admin: cloaca.DatabaseAdmin, server: postgres_server.Server) -> None:
    given = cloaca.TenantConfig("one", "one_user", "given-secret-1")
    first = admin.create_tenant(given)
    second = admin.create_tenant(cloaca.TenantConfig(schema_name="two", username="two_user"))
    again = admin.create_tenant(cloaca.TenantConfig("two", "two_user", ""))

    assert (first.username, first.password, first.schema_name) == ("one_user", "given-secret-1", "one")
    assert len({second.password, again.password}) == 2
    assert min(len(second.password), len(again.password)) >= 32
    passwords = (first.password, second.password, again.password)
    shown = "".join(map(repr, (given, first, second, again, admin))) + str(first)
    log = (server.folder / "server.log").read_text(errors="replace")
    assert "CREATE ROLE" in log
    assert "SCRAM-SHA-256$" in log  # a verifier, of which the password cannot be learnt
    for password in passwords:
        assert password not in shown
        assert password not in log
    assert pickle.loads(pickle.dumps(first)) == first


def test_making_a_tenant_again_sets_its_password_and_keeps_its_runs(admin: cloaca.DatabaseAdmin) -> None:
    config = cloaca.TenantConfig("one", "one_user")
    first = admin.create_tenant(config)
    run = works(first)
    second = admin.create_tenant(config)

    with pytest.raises(ValueError, match="password authentication failed") as caught:
        works(first)
    assert first.password not in str(caught.value)
    works(second)
    assert (run,) in asked(second, "SELECT uid FROM objects WHERE kind = 'WorkflowRun'")


def test_a_tenant_is_removed_with_what_it_has_while_it_works_and_again(
    admin: cloaca.DatabaseAdmin, server: postgres_server.Server
) -> None:
    one = admin.create_tenant(cloaca.TenantConfig("one", "one_user"))
    two = admin.create_tenant(cloaca.TenantConfig("two", "two_user"))
    works(one)
    with psycopg.connect(one.connection_string) as busy:
        busy.execute("SELECT * FROM objects")  # holds a lock in its transaction
        admin.remove_tenant("one", "one_user")
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")
    admin.remove_tenant("one", "one_user")

    with psycopg.connect(f"postgresql://tester@/{DATABASE}?host={server.folder}") as connection:
        left = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname = 'one' UNION ALL "
            "SELECT rolname FROM pg_roles WHERE rolname = 'one_user'"
        ).fetchall()
    assert left == []
    works(two)
    works(admin.create_tenant(cloaca.TenantConfig("one", "one_user")))


def test_an_administrator_needs_no_superuser(admin: cloaca.DatabaseAdmin, server: postgres_server.Server) -> None:
    deputy = cloaca.DatabaseAdmin(f"postgresql://deputy:deputy@/{DATABASE}?host={server.folder}")
    credentials = deputy.create_tenant(cloaca.TenantConfig("one", "one_user"))
    works(credentials)
    with (
        psycopg.connect(f"postgresql://deputy:deputy@/{DATABASE}?host={server.folder}", autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT * FROM one.objects")
    deputy.remove_tenant("one", "one_user")


@pytest.mark.parametrize(
    ("prepare", "config", "words"),
    [
        (
            "CREATE ROLE one_user LOGIN PASSWORD 'theirs'",
            cloaca.TenantConfig("one", "one_user"),
            "the role 'one_user' exists, and was not made for the schema 'one'",
        ),
        (
            "CREATE SCHEMA one",
            cloaca.TenantConfig("one", "one_user"),
            "the schema 'one' exists, and belongs to 'tester'",
        ),
        ("", cloaca.TenantConfig("one", "tester"), "the role 'tester' exists"),
        ("", cloaca.TenantConfig("public", "one_user"), "'public' is PostgreSQL's own"),
        ("", cloaca.TenantConfig("pg_one", "one_user"), "'pg_one' is PostgreSQL's own"),
        ("", cloaca.TenantConfig("one", "PG_user"), "'PG_user' is PostgreSQL's own"),
        ("", cloaca.TenantConfig("", "one_user"), "the name of the schema is ''"),
        ("", cloaca.TenantConfig("one", "o'ne; DROP ROLE tester"), "must contain only alphanumeric"),
        ("", cloaca.TenantConfig("one", "one_user", "nul\0"), "the password must be a string without a NUL"),
    ],
    ids=["role", "schema", "myself", "public", "system", "system role", "empty", "injection", "nul"],
)
def test_what_is_not_a_tenants_is_left_alone(
    server: postgres_server.Server, prepare: str, config: cloaca.TenantConfig, words: str
) -> None:
    url = f"postgresql://tester@/{DATABASE}?host={server.folder}"
    admin = cloaca.DatabaseAdmin(url)
    with psycopg.connect(url, autocommit=True) as connection:
        if prepare:
            connection.execute(prepare)
        try:
            with pytest.raises(RuntimeError, match=r"^Failed to create tenant: ") as caught:
                admin.create_tenant(config)
            assert words in str(caught.value)
            if not config.password:
                with pytest.raises(RuntimeError, match=r"^Failed to remove tenant: "):
                    admin.remove_tenant(config.schema_name, config.username)
        finally:
            connection.execute("DROP SCHEMA IF EXISTS one")
            connection.execute("DROP ROLE IF EXISTS one_user")


def test_tenants_are_kept_out_of_what_everybody_may_write(server: postgres_server.Server) -> None:
    url = f"postgresql://tester@/{DATABASE}?host={server.folder}"
    admin = cloaca.DatabaseAdmin(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")  # as before PostgreSQL 15
        connection.execute(f"GRANT CREATE ON DATABASE {DATABASE} TO PUBLIC")
    one = admin.create_tenant(cloaca.TenantConfig("one", "one_user"))
    try:
        assert refused(one, "CREATE TABLE public.mine (x int)") == "42501"
        assert refused(one, "CREATE SCHEMA mine") == "42501"
    finally:
        admin.remove_tenant("one", "one_user")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///app.db", "is not a PostgreSQL URL"),
        (":memory:", "is not a PostgreSQL URL"),
        ("mysql://me:secret@h/d", "mysql is unknown"),
        ("", "database URL"),
        (None, "database URL"),
        ("postgresql://me:secret@host", "names no database"),
        ("postgresql://me:secret@host/", "names no database"),
        ("postgresql://me:secret@host:port:port/d?sslmode=%zz", "write postgresql://user@host/database"),
    ],
)
def test_a_url_that_is_none_of_postgresql_is_refused_at_once(url: str, words: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        cloaca.DatabaseAdmin(url)
    assert isinstance(caught.value, TenantError)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda admin: admin.create_tenant(cloaca.TenantConfig("a", "b")), "^Failed to create tenant: "),
        (lambda admin: admin.remove_tenant("a", "b"), "^Failed to remove tenant: "),
    ],
    ids=["create", "remove"],
)
def test_a_server_that_is_away_is_a_runtime_error(
    call: Callable[[cloaca.DatabaseAdmin], object], words: str, tmp_path: Path
) -> None:
    admin = cloaca.DatabaseAdmin(f"postgresql://me:{quote(ROOT, safe='')}@/db?host={tmp_path}")
    with pytest.raises(RuntimeError, match=words) as caught:
        call(admin)
    assert ROOT not in str(caught.value)
    assert quote(ROOT, safe="") not in str(caught.value) + repr(admin)
