"""Tell whether a daemon runs on a home. Looks at its lock; never keeps it."""

from __future__ import annotations

import fcntl
import os

from cloaca.home import Home


def daemon_process(home: Home) -> int | None:
    """The process id of the daemon on ``home``; None: none runs there."""
    try:
        descriptor = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        said = os.read(descriptor, 32).decode(errors="replace").strip()
        if not said.isdigit():
            return None  # emptied when the daemon left; the lock itself is left alone: one may be starting
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(said)
        return None  # it died without a word; the kernel let go of the lock
    finally:
        os.close(descriptor)


def absence_of_daemon(home: Home) -> str:
    """What that means, and what to do about it."""
    return f"no daemon runs on {home.root}, so nothing is polled and no run starts: start `cloaca daemon`"
