"""The stores that the suite runs against.

To add one (PostgreSQL, Kubernetes): write a factory that gives an empty store, and name it in FACTORIES. A factory that
needs a server calls ``pytest.skip`` with how to get one where there is none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cloaca.store import Store, open_store

Factory = Callable[[Path], Awaitable[Store]]


async def memory(folder: Path) -> Store:
    """SQLite in memory."""
    return await open_store(":memory:")


async def sqlite_file(folder: Path) -> Store:
    """SQLite in a file."""
    return await open_store(f"sqlite:///{folder}/store.db")


FACTORIES: tuple[Factory, ...] = (memory, sqlite_file)


@pytest.fixture(params=FACTORIES, ids=lambda factory: factory.__name__)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    made = await request.param(tmp_path)
    yield made
    await made.close()
