"""Empty a store that serves several tests in turn."""

from __future__ import annotations

from cloaca.resources import STORED_KINDS
from cloaca.store import Store


async def remove_everything(store: Store) -> None:
    """Return once all objects are gone. What is owned goes first, so that nobody collects it meanwhile."""
    async with store.changes() as changes:
        for kind in reversed(STORED_KINDS):
            for left in await store.list(kind):
                await store.delete(left.ref)
        while any([await store.list(kind) for kind in STORED_KINDS]):
            await changes.__anext__()
