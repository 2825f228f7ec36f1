"""Let processes take turns on one database by a lock file beside it, and tell each other of what they wrote.

SQLite's own wait sleeps longer and longer and so can starve; ours keeps trying at short, even distances.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import weakref
from contextlib import suppress

_PAUSE = 0.0003  # seconds between two tries: a write takes about a tenth of it


class FileLock:
    """Excludes every other holder, in this process too. One thread at a time may use it."""

    def __init__(self, path: str | None) -> None:
        self.path: str | None = None  # None: there is no file, everybody is let in at once
        self._descriptor: int | None = None
        if path is not None:
            with suppress(OSError):  # a read-only folder: nobody can write there anyhow
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                self.path = path
                _OPEN.add(self)
                os.pwrite(self._descriptor, b".", 0)  # what ``tell`` reads

    def take(self) -> bool:
        """Whether it is ours now. Never waits."""
        if self._descriptor is None:
            return True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            # a file system without locks: SQLite's own wait has to do
            return error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)
        return True

    def wait(self, seconds: float) -> bool:
        """Whether it became ours within ``seconds``."""
        deadline = time.monotonic() + seconds
        while not self.take():
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def give(self) -> None:
        """Let the next one in."""
        if self._descriptor is not None:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            except OSError:  # where it could not be taken, it need not be given
                return

    def tell(self) -> None:
        """Let other processes know of a commit: the kernel tells them that the file was read, which changes nothing."""
        if self._descriptor is not None:
            try:
                os.pread(self._descriptor, 1, 0)
            except OSError:  # they look now and then all the same
                return

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_OPEN: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _close_in_child() -> None:
    """A lock lasts while any process has its descriptor: a forked child must not keep its dead parent's."""
    for lock in list(_OPEN):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
