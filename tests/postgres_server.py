"""PostgreSQL servers for tests: one that a whole test run shares, and others that a test may stop, kill and start.

The shared one is kept by a process of its own (``python tests/postgres_server.py FOLDER``), which ends it when the last
process that uses it is gone, however that came about.
"""

from __future__ import annotations

import fcntl
import functools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

HOW_TO_GET_ONE = (
    "no PostgreSQL server here: run `make postgres` (as root, on Debian or Ubuntu), or put the folder of initdb and "
    "postgres on the PATH"
)
ACCOUNTS = ("postgres", "nobody")  # who runs the server if we are root, which it refuses to be


def binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``; None: there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found and shutil.which("postgres") else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Server:
    """A server on a Unix socket in ``folder``, with one superuser ``tester``, to whom everybody is equal."""

    def __init__(self, folder: Path, *, fsync: bool) -> None:
        found = binaries()
        if found is None:
            pytest.skip(HOW_TO_GET_ONE)
        self._binaries = found
        self.folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = next((name for name in ACCOUNTS if _account(name)), None) if os.geteuid() == 0 else None
        folder.chmod(0o755)
        self._data.mkdir(mode=0o700)
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            for path in (self._data, folder):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", self._data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nfsync = {'on' if fsync else 'off'}\n"
                "shared_buffers = 16MB\nmax_connections = 200\nlogging_collector = off\njit = off\n"
            )

    def url(self, schema: str | None = None, database: str = "postgres", **options: str) -> str:
        """A URL of it; without ``schema`` one that nobody has used yet."""
        options = {"host": str(self.folder), "schema": schema or f"t_{uuid.uuid4().hex}", **options}
        query = "&".join(f"{key}={value}" for key, value in options.items())
        return f"postgresql://tester@/{database}?{query}"

    @property
    def admin(self) -> str:
        """A URL for a client of a test's own."""
        return f"postgresql://tester@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data], stdout=log, stderr=log, cwd="/", **self._as_user()
            )
        import psycopg  # an extra

        while True:  # each try waits for the server's answer
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            try:
                psycopg.connect(self.admin).close()
            except psycopg.OperationalError:
                continue
            return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends sessions and leaves all in order, SIGQUIT is a crash of the server."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120, **self._as_user())
        assert done.returncode == 0, done.stdout + done.stderr

    def _as_user(self) -> dict[str, object]:
        if self._user is None:
            return {}
        return {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}


def _account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def own_server(*, fsync: bool = True) -> Server:
    """A server that runs, which the caller removes."""
    server = Server(Path(tempfile.mkdtemp(prefix="cloacina-pg-")), fsync=fsync)
    server.start()
    return server


class Shared:
    """The server of this test run, seen from a process that uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    url = Server.url
    admin = Server.admin


@functools.lru_cache(maxsize=1)
def shared() -> Shared:
    """The server of this test run, for as long as this process lives. Skips the test where there is no PostgreSQL."""
    if binaries() is None:
        pytest.skip(HOW_TO_GET_ONE)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    folder = Path(tempfile.gettempdir()) / f"cloacina-pg-{run[:12]}"
    starting = os.open(f"{folder}.start", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(starting, fcntl.LOCK_EX)
    using = os.open(f"{folder}.users", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(using, fcntl.LOCK_SH)  # until this process ends
    if not folder.exists():
        folder.mkdir()
        reader, writer = os.pipe()
        os.posix_spawn(
            sys.executable,
            [sys.executable, __file__, str(folder)],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)],
            setsid=True,
        )
        os.close(writer)
        with os.fdopen(reader) as said:
            assert said.readline() == "ready\n"
    os.close(starting)
    return Shared(folder)


def keep(folder: Path) -> None:
    """Run the shared server until nobody uses it."""
    using = os.open(f"{folder}.users", os.O_RDWR)
    server = Server(folder, fsync=False)
    try:
        server.start()
        print("ready", flush=True)
        os.close(1)
        fcntl.flock(using, fcntl.LOCK_EX)
    finally:
        server.remove()
        for leftover in (f"{folder}.users", f"{folder}.start"):
            Path(leftover).unlink(missing_ok=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
