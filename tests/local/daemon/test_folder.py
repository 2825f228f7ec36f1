"""A watched folder misses no archive, whenever it is copied in."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from builders import WORKFLOW, archive
from cloacina_operator.hosts import folder as module
from cloacina_operator.hosts.folder import Folders
from cloacina_operator.hosts.scan import FolderScan, Look

from cloaca.packages.archive import Limits
from cloaca.resources import CloacinaPackage
from cloaca.store import Store, open_store


class CopiedIntoAtOnce(Folders):
    """Someone copies an archive in just when the first look has ended."""

    archive: Path

    async def _look(self) -> list[tuple[FolderScan, Look]]:
        looks = await super()._look()
        if not self.archive.exists():
            self.archive.write_bytes(archive(WORKFLOW))
        return looks


async def _applied(folders: Folders, store: Store, name: str = "demo") -> None:
    """Follow the folders until the package is there."""
    following = asyncio.ensure_future(folders.run())
    try:
        async with store.changes() as changes:
            while await store.get(CloacinaPackage, name) is None:
                await anext(changes)
    finally:
        following.cancel()
        await asyncio.wait({following})


async def test_an_archive_copied_right_after_the_first_look_is_seen_without_a_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 3600.0)
    packages = tmp_path / "packages"
    packages.mkdir()
    store = await open_store(str(tmp_path / "store.db"))
    folders = CopiedIntoAtOnce(store=store, folders=(packages,), limits=Limits())
    folders.archive = packages / "demo-1.0.0.cloacina"
    try:
        await asyncio.wait_for(_applied(folders, store), 60.0)
    finally:
        await store.close()


class NeverAnswers(FolderScan):
    """A folder on a file system that hangs."""

    def look(self) -> Look:
        reading, writing = os.pipe()
        try:
            os.read(reading, 1)  # nobody writes there
        finally:
            os.close(reading)
            os.close(writing)
        raise AssertionError


async def test_a_folder_that_does_not_answer_holds_up_no_other_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER", 0.2)
    packages, hangs = tmp_path / "packages", tmp_path / "hangs"
    packages.mkdir()
    (packages / "demo-1.0.0.cloacina").write_bytes(archive(WORKFLOW))
    store = await open_store(str(tmp_path / "store.db"))
    folders = Folders(store=store, folders=(packages,), limits=Limits())
    folders._scans += (NeverAnswers(hangs, Limits()),)
    try:
        await asyncio.wait_for(_applied(folders, store), 60.0)
        before = threads()
        for _ in range(3):
            looks = await folders._look()
            assert [look.folder.trouble for _, look in looks] == ["", f"the folder {hangs} does not answer"]
        assert threads() <= before + 1  # it is not asked again before it has answered
    finally:
        await store.close()


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
