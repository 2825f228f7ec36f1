"""Keep the store's packages as the watched folders declare them: an archive copied in is a package applied."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from watchfiles import awatch

from cloaca.errors import AlreadyExists, Conflict, NotFound, PackageError, StoreUnavailable
from cloaca.packages.archive import Limits, read_archive
from cloaca.resources import CloacinaPackage
from cloaca.resources.names import FOLDER, FOLDER_LABEL
from cloaca.store import Store
from cloacina_operator.core.folder import SUFFIX, ArchiveFile, desired, difference

log = logging.getLogger("cloacina.folder")

SETTLE = 0.03  # seconds in which a file must not change to count as copied whole
PATIENCE = 2.0  # seconds after which a file that goes on changing is looked at anyway
RESCAN = 60.0  # seconds between two looks at everything, for what no event told (a folder on a network, say)


class Folders:
    """The watched folders. ``run()`` follows them until cancelled; ``rescan()`` asks for a look now."""

    def __init__(self, *, store: Store, folders: Sequence[Path], limits: Limits) -> None:
        self._store = store
        self._folders = tuple(folders)
        self._limits = limits
        self._known: dict[Path, tuple[tuple[int, int, int], ArchiveFile]] = {}
        self._asked = asyncio.Event()

    def rescan(self) -> None:
        """Look at everything now."""
        self._asked.set()

    async def run(self) -> None:
        """Follow the folders until cancelled."""
        watching = asyncio.ensure_future(self._watch())
        await asyncio.sleep(0)  # the watch stands before the first look, so that no copy falls between the two
        try:
            while True:
                self._asked.clear()
                try:
                    await self._apply(await self._look())
                except (Conflict, StoreUnavailable) as error:
                    log.warning("the folders are looked at again: %s", error)
                    await asyncio.sleep(1.0)
                    continue
                asked = asyncio.ensure_future(self._asked.wait())
                await asyncio.wait({asked, watching}, timeout=RESCAN, return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
                if watching.done():
                    watching.result()
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        # awatch watches before it first lets another task run; what happens from then on is kept until it is asked for
        async for _ in awatch(*self._folders, debounce=200, step=50, recursive=False, stop_event=None):
            self._asked.set()

    async def _look(self) -> list[ArchiveFile]:
        files = []
        for path in sorted(path for folder in self._folders for path in folder.glob(f"*{SUFFIX}")):
            file = await self._settled(path)
            if file is not None:
                files.append(file)
        self._known = {Path(file.path): self._known[Path(file.path)] for file in files}
        return files

    async def _settled(self, path: Path) -> ArchiveFile | None:
        """What the file is, once it stopped changing; None: it is gone."""
        waited = 0.0
        while True:
            before = _stat(path)
            known = self._known.get(path)
            if before is None:
                return None
            if known is not None and known[0] == before:
                return known[1]
            await asyncio.sleep(SETTLE)
            waited += SETTLE
            if _stat(path) == before or waited >= PATIENCE:
                file = await asyncio.to_thread(_read, path, self._limits)
                if file is not None:
                    self._known[path] = (before, file)
                return file

    async def _apply(self, files: Sequence[ArchiveFile]) -> None:
        existing = await self._store.list(CloacinaPackage, "default")
        todo = difference(desired(files), existing)
        for package in todo.create:
            try:
                await self._store.create(package)
            except AlreadyExists:
                self._asked.set()
        for package in todo.update:
            try:
                await self._store.update(package)
            except NotFound:
                self._asked.set()
        for package in todo.delete:
            log.info("%s: its archive was removed, so it is deleted", package.ref)
            await self._store.delete(package.ref, package.metadata.uid)
        for package in todo.taken:
            log.warning(
                "%s was applied by hand, so %s is left alone: delete the object or the file",
                package.ref,
                package.spec.source.url,
            )


def declared_by_folder(package: CloacinaPackage) -> bool:
    """Whether a folder, not a person, declares the package."""
    return package.metadata.labels.get(FOLDER_LABEL) == FOLDER


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _read(path: Path, limits: Limits) -> ArchiveFile | None:
    """What the file is. One over the limit is read up to it: enough to be refused for that when it is fetched."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.packed_bytes + 1)
    except OSError as error:
        log.warning("%s cannot be read: %s", path, error.strerror or error)
        return None
    name = version = None
    try:
        manifest = read_archive(data, limits).manifest
        name, version = manifest.package.name, manifest.package.version
    except PackageError:
        pass  # the package's conditions will say what is wrong
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return ArchiveFile(path=str(path), url=path.absolute().as_uri(), digest=digest, package=name, version=version)
