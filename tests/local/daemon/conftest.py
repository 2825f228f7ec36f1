"""A daemon for each test that wants one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import postgres_server
import pytest
from daemon_process import PATIENCE, Daemon, processes_with


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon in a home of its own: not started yet, and gone afterwards with all that it started."""
    mark = f"CLOACINA_TEST={tmp_path}"
    made = Daemon(tmp_path / "home")
    made.environment["CLOACINA_TEST"] = str(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    deadline = time.monotonic() + PATIENCE
    while left := processes_with(mark):
        assert time.monotonic() < deadline, f"processes outlived their daemon: {left}"
        await asyncio.sleep(0.05)


@pytest.fixture(params=["its own file", "postgres"])
def anywhere(request: pytest.FixtureRequest, daemon: Daemon) -> Daemon:
    """The daemon, with each kind of store that it can have."""
    if request.param == "postgres":
        daemon.keep_in(postgres_server.shared().url())
    return daemon
