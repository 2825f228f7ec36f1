"""Tell whether a daemon works on a home, or on a store that is shared. Looks at its lock or its seat, keeps neither."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cloaca.home import Home

if TYPE_CHECKING:
    from cloaca.resources.seat import Seat
    from cloaca.store import Store

SILENT = timedelta(minutes=1)
"""Without a sign of life of a daemon elsewhere, by our clock and its: it gives one every five seconds."""


@dataclass(frozen=True, kw_only=True)
class Working:
    """The daemon that works on a store."""

    where: str = ""
    absence: str = ""  # why there is none, and what to do; empty: there is one


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


async def seated(store: Store) -> Seat | None:
    """Who has the seat of a store that is shared; None: nobody."""
    from cloaca.resources.seat import DAEMON, Seat

    return await store.get(Seat, DAEMON)


def holder_of(seat: Seat | None, now: datetime) -> Working:
    """Who works on a store that is shared, as its seat tells."""
    from cloaca.cli.tables import age
    from cloaca.library.presence import is_gone

    unheard = "so nothing is polled and no run starts"
    start = "start `cloaca daemon` with this store"
    if seat is None:
        return Working(absence=f"no daemon works on this store, {unheard}: {start}")
    where = f"process {seat.spec.pid} on {seat.spec.host}, home {seat.spec.home}"
    who = f"the daemon that worked on this store ({where})"
    if is_gone(seat.spec):
        return Working(absence=f"{who} died, {unheard}: {start}")
    if seat.status.at is not None and now - seat.status.at > SILENT:
        return Working(absence=f"{who} gave its last sign of life {age(seat.status.at, now)} ago, {unheard}: {start}")
    return Working(where=where)


def home_of_file(path: str) -> Home | None:
    """The home that has this file as its own store: the daemon there takes no seat. None: it is no such file."""
    home = Home(Path(path).absolute().parent)
    return home if home.database == Path(path).absolute() else None
