"""A watched folder misses no archive, whenever it is copied in."""

from __future__ import annotations

import asyncio
from pathlib import Path

from builders import WORKFLOW, archive
from cloacina_operator.core.folder import ArchiveFile
from cloacina_operator.hosts.folder import RESCAN, Folders

from cloaca.packages.archive import Limits
from cloaca.resources import CloacinaPackage
from cloaca.store import open_store


class CopiedIntoAtOnce(Folders):
    """Someone copies an archive in just when the first look has ended."""

    archive: Path

    async def _look(self) -> list[ArchiveFile]:
        files = await super()._look()
        if not self.archive.exists():
            self.archive.write_bytes(archive(WORKFLOW))
        return files


async def test_an_archive_copied_right_after_the_first_look_is_seen_without_a_second_scan(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    store = await open_store(str(tmp_path / "store.db"))
    folders = CopiedIntoAtOnce(store=store, folders=(packages,), limits=Limits())
    folders.archive = packages / "demo-1.0.0.cloacina"
    following = asyncio.ensure_future(folders.run())
    try:
        async with store.changes() as changes:

            async def applied() -> None:
                while await store.get(CloacinaPackage, "demo") is None:
                    await anext(changes)

            await asyncio.wait_for(applied(), RESCAN / 2)  # at RESCAN it would be seen in any case
    finally:
        following.cancel()
        await asyncio.wait({following})
        await store.close()
