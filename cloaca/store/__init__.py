"""Where resources and archives live."""

from cloaca.store.base import ArchiveStore, Change, Store
from cloaca.store.runs import RunStore

__all__ = ["ArchiveStore", "Change", "RunStore", "Store", "open_archives", "open_runs", "open_store"]


async def open_store(url: str) -> Store:
    """The store at ``url``: ``:memory:``, ``sqlite:///app.db``, a path, ``postgresql://…`` or ``kubernetes:``.

    Raises StoreUnavailable.
    """
    if isinstance(url, str) and url.startswith("kubernetes:"):
        from cloaca.store.kubernetes.store import KubernetesStore

        return await KubernetesStore.open(url)
    from cloaca.store.sql.store import SqlStore  # a program that only names types need not load SQLite

    return await SqlStore.open(url)


async def open_archives(url: str) -> ArchiveStore:
    """The store of a daemon at ``url``, a file or ``postgresql://…``. Raises StoreUnavailable."""
    from cloaca.store.sql.store import SqlStore

    return await SqlStore.open(url)


def open_runs(url: str) -> RunStore:
    """What the process of a run needs of the store at ``url``, and no more; waits for it. Raises StoreUnavailable."""
    if url.startswith("kubernetes:"):
        from cloaca.store.kubernetes.runs import KubernetesRuns

        return KubernetesRuns.open(url)
    from cloaca.store.sql.store import SqlStore

    return SqlStore.open_here(url)
