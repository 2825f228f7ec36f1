"""The stores that the suite runs against.

To add one: write a factory that gives an empty store, and name it in FACTORIES. A factory that
needs a server calls ``pytest.skip`` with how to get one where there is none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import postgres_server
import pytest
from cluster.control_plane import ControlPlane
from emptying import remove_everything
from groups import API_SERVER

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


async def kubernetes(folder: Path) -> Store:
    """An API server, asked for every read."""
    return await emptied(await open_store(f"kubernetes://{folder}/kubeconfig"))


async def kubernetes_cached(folder: Path) -> Store:
    """An API server, whose objects a watch brings into memory."""
    return await emptied(await open_store(f"kubernetes://{folder}/kubeconfig?cached=true"))


async def emptied(store: Store) -> Store:
    """The server serves all tests in turn."""
    try:
        await remove_everything(store)
    except BaseException:
        await store.close()
        raise
    return store


FACTORIES: tuple[Factory, ...] = (memory, sqlite_file, postgres, kubernetes, kubernetes_cached)


ON_A_CLUSTER = (kubernetes, kubernetes_cached)


@pytest.fixture(
    params=[pytest.param(factory, marks=API_SERVER) if factory in ON_A_CLUSTER else factory for factory in FACTORIES],
    ids=lambda factory: factory.__name__,
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    if request.param in ON_A_CLUSTER:
        serve(request.getfixturevalue("control_plane"), tmp_path)
    made = await request.param(tmp_path)
    yield made
    await made.close()


def serve(plane: ControlPlane, folder: Path) -> None:
    """The namespaces that the suite names; who we are there goes into ``folder``."""
    if not plane.processes and plane.kubectl("get", "cloacina", "-A", "-o", "name"):
        pytest.skip("the cluster of $KUBECONFIG has packages, triggers or runs: the suite would delete them")
    names = ("other", "one", "two")
    if not set(names) <= set(plane.namespaces):
        plane.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names))
        plane.namespaces += names
    (folder / "kubeconfig").symlink_to(plane.kubeconfig)
