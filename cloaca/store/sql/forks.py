"""SQLite connections never cross a fork: they are closed before it, and opened again in the parent.

SQLite keeps account of its locks on files in the memory of the process, and the kernel gives a forked child none of
them. A child that opened a file which its parent had open would write without the locks that it believes to hold, and
its commits would be lost once the parent lets go of the file. Nothing here knows what is stored.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Protocol

LONGEST_WAIT = 5.0  # seconds that a fork waits for a write to end, or a checkpoint


class Forkable(Protocol):
    """A database file that this process has open."""

    def suspend(self) -> None:
        """Close the connections, and keep everybody from using them. Called before a fork."""

    def resume(self) -> None:
        """Open them again, and let everybody go on. Called in the parent after the fork."""

    def orphan(self) -> None:
        """Give up everything: it is the parent's. Called in the child."""


_open: weakref.WeakSet[Forkable] = weakref.WeakSet()
_forking = threading.Lock()  # held from before a fork until after it
_suspended: list[Forkable] = []
_inherited: set[tuple[int, int]] = set()


def watch(database: Forkable) -> None:
    """Suspend ``database`` for each fork, as long as it lives."""
    with _forking:
        _open.add(database)


def inherit(device: int, inode: int) -> None:
    """Note that this child has connections to that file that could not be closed before the fork."""
    _inherited.add((device, inode))


def is_inherited(path: Path) -> bool:
    """Whether this process must not open the file at ``path``, since it has connections of its parent to it."""
    if not _inherited:
        return False
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) in _inherited


def _before() -> None:
    _forking.acquire()  # released after the fork
    _suspended[:] = list(_open)
    for database in _suspended:
        database.suspend()


def _after_in_parent() -> None:
    resumed, _suspended[:] = list(_suspended), []
    try:
        for database in resumed:
            database.resume()
    finally:
        _forking.release()


def _after_in_child() -> None:
    global _forking
    orphans, _suspended[:] = list(_suspended), []
    for database in orphans:
        database.orphan()
        _open.discard(database)
    _forking = threading.Lock()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
