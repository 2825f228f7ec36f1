"""One daemon a home: a lock that the kernel lets go of with the process that holds it."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloaca.errors import CloacaError

log = logging.getLogger("cloacina.daemon")


class AlreadyRunning(CloacaError):
    """Another daemon runs on this home."""


class HomeLock:
    """The lock file of a home, held by this process."""

    def __init__(self, path: Path) -> None:
        """Take it. Raises AlreadyRunning, which names the process that holds it, and OSError."""
        self._path = path
        self._descriptor = _taken(path)

    def ensure(self) -> None:
        """See that the file under the path is still the one that is held, and take it again if somebody removed it.

        Raises AlreadyRunning if another daemon took it meanwhile, and OSError.
        """
        if _is_at(self._descriptor, self._path):
            return
        again = _taken(self._path)
        os.close(self._descriptor)
        self._descriptor = again
        log.warning("%s was removed or replaced while the daemon held it: it was taken again", self._path)

    def release(self) -> None:
        """Let the next daemon in."""
        os.ftruncate(self._descriptor, 0)
        self.close()

    def close(self) -> None:
        """As ``release``, but the file goes on naming this process."""
        os.close(self._descriptor)


@contextmanager
def locked(path: Path) -> Iterator[HomeLock]:
    """Hold the lock file at ``path``, which says our process id. Raises AlreadyRunning, which names the other's."""
    lock = HomeLock(path)
    try:
        yield lock
    except BaseException:
        lock.close()
        raise
    lock.release()


def _taken(path: Path) -> int:
    """A descriptor of the file at ``path``, locked. Raises AlreadyRunning."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):  # else it was removed before we had it, and excludes nobody
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        except BlockingIOError:
            other = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise AlreadyRunning(
                f"a daemon (process {other}) runs on {path.parent} already: stop it, or use another --home"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one under the path."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
