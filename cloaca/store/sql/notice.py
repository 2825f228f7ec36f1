"""Be told by the kernel that a file was read (Linux inotify). Costs nothing while nothing happens."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_IN_ACCESS = 0x1
_LONGEST = 65_536  # bytes of events that one read takes

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def watch(path: str) -> int | None:
    """A descriptor that becomes readable when the file at ``path`` is read; None: the system cannot."""
    if _libc is None:
        return None
    descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    if _libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_ACCESS) < 0:
        os.close(descriptor)
        return None
    return descriptor


def drain(descriptor: int) -> None:
    """Take what was told, so that the descriptor becomes readable by the next write only."""
    with suppress(BlockingIOError):
        while os.read(descriptor, _LONGEST):
            pass
