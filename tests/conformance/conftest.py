"""The stores that the suite runs against.

To add one (Kubernetes): write a factory that gives an empty store, and name it in FACTORIES. A factory that
needs a server calls ``pytest.skip`` with how to get one where there is none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import postgres_server
import pytest

from cloaca.store import Store, open_store

Factory = Callable[[Path], Awaitable[Store]]


async def memory(folder: Path) -> Store:
    """SQLite in memory."""
    return await open_store(":memory:")


async def sqlite_file(folder: Path) -> Store:
    """SQLite in a file."""
    return await open_store(f"sqlite:///{folder}/store.db")


async def postgres(folder: Path) -> Store:
    """A schema of its own on a PostgreSQL server."""
    return await open_store(postgres_server.shared().url())


FACTORIES: tuple[Factory, ...] = (memory, sqlite_file, postgres)


@pytest.fixture(params=FACTORIES, ids=lambda factory: factory.__name__)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    made = await request.param(tmp_path)
    yield made
    await made.close()
