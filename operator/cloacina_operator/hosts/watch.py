"""Learn from the kernel at once that something happened in a folder. Nothing relies on it: it only saves waiting."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from watchfiles import awatch

from cloacina_operator.core.folder import Identity

log = logging.getLogger("cloacina.folder")

RETRY = 30.0  # seconds between two tries to watch what could not be watched

WatchedFolder = tuple[Path, Identity]


class Watcher:
    """Calls ``changed`` when something happens in the folders that it was last asked to follow."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._folders: frozenset[WatchedFolder] = frozenset()
        self._watching: asyncio.Task[None] | None = None
        self._failed_at: float | None = None  # None: it did not fail
        self._said: set[str] = set()

    @property
    def works(self) -> bool:
        """Whether the kernel tells of changes."""
        return self._watching is not None and not self._watching.done()

    async def follow(self, folders: Collection[WatchedFolder], *, unwatched: float) -> bool:
        """Follow these from now on; another folder under the same path is followed anew. Whether that was begun now:
        what happened before is not told. ``unwatched``: seconds between two looks where it cannot, for the log."""
        wanted = frozenset(folders)
        if wanted == self._folders and (self.works or not wanted):
            return False
        failed = self._failed_at
        if wanted == self._folders and failed is not None and time.monotonic() - failed < RETRY:
            return False
        await self.close()
        self._folders, self._failed_at = wanted, None
        if wanted:
            paths = sorted(path for path, _ in wanted)
            self._watching = asyncio.ensure_future(self._watch(paths, unwatched))
            await asyncio.sleep(0)  # awatch watches before it first lets another task run
        return True

    async def close(self) -> None:
        """Follow nothing any more."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    async def _watch(self, paths: list[Path], unwatched: float) -> None:
        try:
            async for _ in awatch(
                *paths, debounce=200, step=50, recursive=False, stop_event=None, ignore_permission_denied=True
            ):
                self._changed()
        except Exception as error:  # noqa: BLE001 - it may raise anything: the folders are looked at without it
            self._failed_at = time.monotonic()
            why = _reason(error)
            if why not in self._said:
                self._said.add(why)
                log.warning(
                    "the system cannot tell of changes in the watched folders (%s): they are looked at every %g s, "
                    "and it is tried again",
                    why,
                    unwatched,
                )
            self._changed()


def _reason(error: BaseException) -> str:
    """The words of the error that is at the bottom of it."""
    while (parts := getattr(error, "exceptions", None)) is not None:
        error = parts[0]
    return f"{error}" or type(error).__name__
