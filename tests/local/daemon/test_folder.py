"""A watched folder misses no archive, whenever it is copied in."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from builders import WORKFLOW, archive
from cloacina_operator.hosts import folder as module
from cloacina_operator.hosts.folder import Folders
from cloacina_operator.hosts.scan import FolderScan, Look

from cloaca.packages.archive import Limits
from cloaca.resources import CloacinaPackage, Ref
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


async def test_a_folder_that_took_the_place_of_another_one_speaks_for_it_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GONE_REPLACED", 2.0)
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "demo.cloacina").write_bytes(archive(WORKFLOW))
    store = await open_store(str(tmp_path / "store.db"))
    folders = Folders(store=store, folders=(packages,), limits=Limits())
    demo = Ref(CloacinaPackage.KIND, "default", "demo")
    try:
        await asyncio.wait_for(_applied(folders, store), 60.0)
        packages.rename(tmp_path / "old")
        packages.mkdir()
        (packages / "other.cloacina").write_bytes(archive(WORKFLOW, name="other"))
        await asyncio.wait_for(_applied(folders, store, "other"), 60.0)
        assert folders.trouble(demo) is not None
        assert await store.get(CloacinaPackage, "demo") is not None
        following = asyncio.ensure_future(folders.run())
        deadline = time.monotonic() + 60.0
        while await store.get(CloacinaPackage, "demo") is not None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        following.cancel()
        await asyncio.wait({following})
        assert folders.trouble(demo) is None
    finally:
        await store.close()


class NeverAnswers(FolderScan):
    """A folder on a file system that hangs."""

    asked = 0

    def look(self) -> Look:
        self.asked += 1
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
    never = NeverAnswers(hangs, Limits())
    folders._scans += (never,)
    try:
        await asyncio.wait_for(_applied(folders, store), 60.0)
        before = never.asked
        for _ in range(3):
            looks = await folders._look()
            assert [look.folder.trouble for _, look in looks] == ["", f"the folder {hangs} does not answer"]
        assert never.asked == before + 1  # it is not asked again before it has answered
    finally:
        await store.close()
