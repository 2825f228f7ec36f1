"""Decide who of several operators leads, by a Lease. Pure: no I/O, no clock.

Clocks of different machines are never compared: a lease has run out when *we* saw nothing move for its duration.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ECHO = 30.0  # seconds within which a renewal has to come back through the watch
TOLD = 300.0  # seconds within which every watch says something: bookmarks, or its end, come every two minutes at least


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """How long a Lease holds, in seconds. Names and defaults are those of client-go's leader election."""

    duration: float = 15.0
    """A candidate takes over once it has seen nothing move for this long."""
    renew_deadline: float = 10.0
    """A leader whose renewals fail tries for this long, and then stops leading."""
    retry_period: float = 2.0
    """Between two renewals, and between two looks of a candidate. One request may take as long."""

    def fault(self) -> str | None:
        """Why two operators could lead at once with these times; None: they cannot.

        A renewal fails one period after the last good one, is tried again until the deadline, and the last try may take
        another period.
        """
        latest = self.renew_deadline + 2 * self.retry_period
        if latest < self.duration:
            return None
        return (
            f"a leader would stop up to {latest:g} s after its last renewal, when another one leads since "
            f"{self.duration:g} s: the duration must be more than the renew deadline and two retry periods"
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A Lease as we last read it, and since when, by our clock, it says so."""

    holder: str  # empty: nobody
    renewed: str  # as it stands there; only compared
    since: float
    duration: float  # seconds that it holds after its last renewal, as its holder says


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
    return Step.TAKE if now >= seen.since + seen.duration else Step.WAIT


def observed(before: Seen | None, holder: str, renewed: str, duration: float, now: float) -> Seen:
    """What is known after reading: the time of the first sight stays while nothing moves."""
    if before is not None and (before.holder, before.renewed) == (holder, renewed):
        return before
    return Seen(holder=holder, renewed=renewed, since=now, duration=duration)


def pause_before_retry(failing_since: float, now: float, times: LeaseTimes) -> float | None:
    """Seconds until a leader tries once more to renew; None: it must stop, since another one may soon lead.

    ``failing_since``: when the first renewal that failed was begun. The last try is begun at the deadline itself, so
    that an API server that is away for less than the deadline costs nobody the lead.
    """
    left = failing_since + times.renew_deadline - now
    return None if left <= 0 else min(times.retry_period, left)


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
