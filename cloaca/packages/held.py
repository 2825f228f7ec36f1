"""Find what an import took that only one process can have: a port, a lock. Such a package is refused.

Every process of a package imports it (on a cluster each pod, on a laptop also ``cloaca run`` beside the daemon, and a
new version beside the old one), so the second one could not start. Linux only; elsewhere nothing is found.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from cloaca.errors import LoadError

_DESCRIPTORS = Path("/proc/self/fd")
_LOCKS = Path("/proc/locks")


def held() -> frozenset[str]:
    """What this process has now, each in words: ``port 8000``, ``the lock of /tmp/x``."""
    if sys.platform != "linux":
        return frozenset()
    return frozenset((*_ports(), *_locks()))


def refuse_held(entry_module: str, before: frozenset[str]) -> None:
    """Raise LoadError if this process has more than ``before`` the import of ``entry_module``."""
    taken = sorted(held() - before)
    if taken:
        raise LoadError(
            f"importing {entry_module!r} takes {' and '.join(taken)}, which only one process can have: each run and "
            "each poller imports the package, so take it inside a task or a trigger"
        )


def _ports() -> Iterator[str]:
    """Sockets that listen where no second one can."""
    for number, status in _open_files():
        if not stat.S_ISSOCK(status.st_mode):
            continue
        with socket.socket(fileno=os.dup(number)) as found:
            if found.family not in (socket.AF_INET, socket.AF_INET6) or found.type != socket.SOCK_STREAM:
                continue
            listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            shared = found.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            if listening and not shared:
                yield f"port {found.getsockname()[1]}"


def _locks() -> Iterator[str]:
    """Files that this process has locked for itself alone."""
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return
    mine = {fields[5] for fields in map(str.split, lines) if len(fields) > 5 and _is_mine(fields)}
    if not mine:
        return
    for number, status in _open_files():
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        if place in mine:
            yield f"the lock of {(_DESCRIPTORS / str(number)).readlink()}"


def _is_mine(fields: list[str]) -> bool:
    # such as "11:", "FLOCK", "ADVISORY", "WRITE", "31276", "fe:00:10103007", "0", "EOF"; a lock that is waited for has
    # "->" in second place
    return fields[1] in ("FLOCK", "POSIX", "OFDLCK") and fields[3] == "WRITE" and fields[4] == str(os.getpid())


def _open_files() -> Iterator[tuple[int, os.stat_result]]:
    for number in [int(path.name) for path in _DESCRIPTORS.iterdir()]:
        try:
            yield number, os.fstat(number)
        except OSError:  # that of the listing itself
            continue
