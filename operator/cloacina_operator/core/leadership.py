"""Decide who of several operators leads, by a Lease. Pure: no I/O, no clock.

Clocks of different machines are never compared: a lease has run out when *we* saw nothing move for its duration.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

DURATION = 9.0  # seconds that a leader may stay silent
RENEW = 2.0  # seconds between two renewals, and between two looks of who waits
GIVE_UP = 6.0  # seconds without a renewal after which a leader stops leading: before anybody else begins
ECHO = 30.0  # seconds within which a renewal has to come back through the watch
TOLD = 300.0  # seconds within which every watch says something: bookmarks, or its end, come every two minutes at least


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A Lease as we last read it, and since when, by our clock, it says so."""

    holder: str  # empty: nobody
    renewed: str  # as it stands there; only compared
    since: float


class Step(str, Enum):
    """What to do about the Lease now."""

    RENEW = "Renew"
    TAKE = "Take"
    WAIT = "Wait"


def next_step(me: str, seen: Seen | None, now: float) -> Step:
    """Renew ours, take one that nobody holds or keeps, wait otherwise. ``seen`` None: there is no Lease."""
    if seen is None or not seen.holder:
        return Step.TAKE
    if seen.holder == me:
        return Step.RENEW
    return Step.TAKE if now >= seen.since + DURATION else Step.WAIT


def observed(before: Seen | None, holder: str, renewed: str, now: float) -> Seen:
    """What is known after reading: the time of the first sight stays while nothing moves."""
    if before is not None and (before.holder, before.renewed) == (holder, renewed):
        return before
    return Seen(holder=holder, renewed=renewed, since=now)


def must_stop(renewed_at: float, now: float) -> bool:
    """Whether a leader has been silent for so long that another one may soon begin."""
    return now >= renewed_at + GIVE_UP


def watch_is_dead(moved_at: float, echoed_at: float) -> bool:
    """Whether the Lease moved (by our write, or as we read it) long after the watch last told of it.

    While the API server is away nothing moves, and nobody is to blame.
    """
    return moved_at > echoed_at + ECHO


def watches_are_dead(answered_at: float, heard_at: float) -> bool:
    """Whether the API server answered us long after one of our watches last told of anything.

    While it is away it does not answer, and nobody is to blame.
    """
    return answered_at > heard_at + TOLD
