"""Keep the store's packages as the watched folders declare them: an archive copied in is a package applied."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cloaca.errors import AlreadyExists, Conflict, NotFound, StoreError, StoreUnavailable
from cloaca.packages.archive import Limits
from cloaca.packages.files import in_own_thread
from cloaca.resources import CloacinaPackage, Ref
from cloaca.store import Store
from cloacina_operator.core.folder import Difference, SeenFolders, difference
from cloacina_operator.core.namesakes import apart
from cloacina_operator.hosts.scan import FolderScan, Look, shown
from cloacina_operator.hosts.watch import Watcher

log = logging.getLogger("cloacina.folder")

LOOK = 5.0  # seconds between two looks at the folders, for what the kernel does not tell (a network folder, a mount)
LOOK_UNWATCHED = 2.0  # the same where it tells nothing
SOON = 0.1  # seconds to the next look at a file that is being written
REAPPLY = 60.0  # seconds after which the packages are compared again though nothing changed in the folders
ANSWER = 5.0  # seconds in which a folder must answer to count as there
GONE = 1.0  # seconds for which a file must be missing to count as removed
GONE_REPLACED = 60.0  # the same in a folder that took the place of another one, in which no file came or went meanwhile


class Folders:
    """The watched folders. ``run()`` follows them until cancelled; ``rescan()`` asks for a look now."""

    def __init__(
        self,
        *,
        store: Store,
        folders: Sequence[Path],
        limits: Limits,
        changed: Callable[[Ref], None] = lambda _: None,
    ) -> None:
        """``changed`` is told of packages of which ``trouble`` says something else than before."""
        self._store = store
        self._limits = limits
        self._changed = changed
        self._scans = self._scans_of(folders, ())
        self._looking: dict[FolderScan, asyncio.Task[Look]] = {}
        self._asked = asyncio.Event()
        self._watcher = Watcher(self._asked.set)
        self._missing: dict[str, float] = {}  # URL of a file → since when it is missing
        self._replaced: frozenset[str] = frozenset()  # those whose folder is another one by now
        self._present: frozenset[str] = frozenset()  # URLs of the files that are there
        self._applied: tuple[SeenFolders, float] | None = None  # None: apply what the next look finds in any case
        self._troubles: Mapping[Ref, str] = {}
        self._said: frozenset[str] = frozenset()

    def rescan(self) -> None:
        """Look at everything now, and compare the packages with it."""
        self._asked.set()

    def watch(self, folders: Sequence[Path]) -> None:
        """Watch these from now on."""
        self._scans = self._scans_of(folders, self._scans)
        self.rescan()

    def trouble(self, package: Ref) -> str | None:
        """Why the file that declares the package, or its folder, cannot be used; None: it can, or none does."""
        return self._troubles.get(package)

    async def run(self) -> None:
        """Follow the folders until cancelled."""
        try:
            while True:
                if self._asked.is_set():
                    self._asked.clear()
                    self._applied = None
                looks = await self._look()
                there = [(scan.path, look.folder.identity) for scan, look in looks if look.folder.identity is not None]
                pause = LOOK if self._watcher.works or not there else LOOK_UNWATCHED
                if await self._watcher.follow(there, unwatched=LOOK_UNWATCHED):
                    pause = 0.0  # what happened between the look and the beginning of the watch
                if any(look.changing for _, look in looks):
                    pause = min(pause, SOON)
                pause = min(pause, await self._apply_if_needed([look for _, look in looks]))
                asked = asyncio.ensure_future(self._asked.wait())
                await asyncio.wait({asked}, timeout=pause)
                asked.cancel()
        finally:
            for looking in self._looking.values():
                looking.cancel()
            self._looking.clear()
            await self._watcher.close()

    def _scans_of(self, folders: Sequence[Path], known: Iterable[FolderScan]) -> tuple[FolderScan, ...]:
        scans = {scan.path: scan for scan in known}
        return tuple(scans.get(folder) or FolderScan(folder, self._limits) for folder in dict.fromkeys(folders))

    # --- looking

    async def _look(self) -> list[tuple[FolderScan, Look]]:
        """Look at all folders at once: one that does not answer holds up no other."""
        scans = self._scans
        return list(zip(scans, await asyncio.gather(*map(self._look_at, scans)), strict=True))

    async def _look_at(self, scan: FolderScan) -> Look:
        looking = self._looking.get(scan)
        patience = 0.0 if looking is not None and not looking.done() else ANSWER
        if looking is None:
            looking = self._looking[scan] = asyncio.ensure_future(in_own_thread(scan.look))
        done, _ = await asyncio.wait({looking}, timeout=patience)
        if not done:
            looking.add_done_callback(lambda _: self._asked.set())
            return scan.away(f"the folder {shown(str(scan.path))} does not answer")
        del self._looking[scan]
        try:
            return looking.result()
        except Exception as error:
            log.exception("%s: unexpected; it is looked at again", scan.path)
            return scan.away(f"the folder {shown(str(scan.path))} cannot be looked at: {error}")

    # --- applying

    async def _apply_if_needed(self, looks: Sequence[Look]) -> float:
        """Seconds to the next look, at most."""
        seen = SeenFolders(
            folders=tuple(look.folder for look in looks), files=tuple(file for look in looks for file in look.files)
        )
        self._note_present(frozenset(file.url for file in seen.files))
        seen = replace(seen, gone=self._gone())
        if self._applied is not None:
            before, when = self._applied
            if before == seen and time.monotonic() - when < REAPPLY:
                return self._until_gone()
        try:
            existing = await self._store.list(CloacinaPackage, "default")
            todo = difference(replace(seen, files=tuple(apart(seen.files, existing))), existing)
            self._report(todo, seen)
            await self._apply(todo)
        except (Conflict, StoreUnavailable) as error:
            log.warning("the folders are looked at again: %s", error)
            self._applied = None
            return 1.0
        now = time.monotonic()
        self._missing = {url: self._missing.get(url, now) for url in todo.missing}
        self._replaced = todo.replaced
        self._applied = (seen, now)
        return self._until_gone()

    def _note_present(self, present: frozenset[str]) -> None:
        """A folder that took the place of another one may still be filled: who waits for it begins anew."""
        if present != self._present:
            self._present = present
            self._missing |= dict.fromkeys(self._replaced & self._missing.keys(), time.monotonic())

    def _gone(self) -> frozenset[str]:
        """URLs of files that have been missing for long enough."""
        return frozenset(url for url, left in self._until_gone_each().items() if left <= 0.0)

    def _until_gone(self) -> float:
        waiting = [left for left in self._until_gone_each().values() if left > 0.0]
        return min(waiting) + 0.01 if waiting else LOOK

    def _until_gone_each(self) -> dict[str, float]:
        """Seconds for which each file that is missing must stay so to count as removed."""
        now = time.monotonic()
        return {
            url: (GONE_REPLACED if url in self._replaced else GONE) - (now - since)
            for url, since in self._missing.items()
        }

    async def _apply(self, todo: Difference) -> None:
        for write, packages in ((self._store.create, todo.create), (self._store.update, todo.update)):
            for package in packages:
                try:
                    await write(package)
                except (AlreadyExists, NotFound):  # somebody was quicker: look again
                    self.rescan()
                except (Conflict, StoreUnavailable):
                    raise
                except StoreError as error:
                    log.error("%s cannot declare a package: %s", package.spec.source.url, error)  # noqa: TRY400
        for package in todo.delete:
            log.info("%s: its archive was removed, so it is deleted", package.ref)
            await self._store.delete(package.ref, package.metadata.uid)

    def _report(self, todo: Difference, seen: SeenFolders) -> None:
        """Say each trouble once, as long as it lasts, and have the conditions of packages tell it too."""
        troubles = {Ref(CloacinaPackage.KIND, "default", name): why for name, why in (todo.troubles or {}).items()}
        before, self._troubles = self._troubles, troubles
        for ref in before.keys() | troubles.keys():
            if before.get(ref) != troubles.get(ref):
                self._changed(ref)
        said = {f"{ref}: {why}; what is active goes on working" for ref, why in troubles.items()}
        said |= set((todo.strays or {}).values())
        said |= {f"{folder.trouble}; packages from it stay as they are" for folder in seen.folders if folder.trouble}
        said |= {
            f"{package.ref} was applied by hand, so {package.spec.source.url} is left alone: delete the object or "
            "the file"
            for package in todo.taken
        }
        for message in sorted(said - self._said):
            log.warning("%s", message)
        self._said = frozenset(said)
