"""When a trigger is polled next. Pure: time and chance arrive as arguments. All times are monotonic seconds."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

JITTER = 0.05  # the largest part of an interval that chance adds to a poll's time
LONGEST_JITTER = 1.0  # seconds
STEP = 0.1
"""Seconds between two moments at which polls come due: those of one moment cost one awakening of each process, which
is most of what a poll costs. A fifth of the interval, where that is shorter."""


@lru_cache(maxsize=4_096)
def phase(uid: str, interval: float) -> float:
    """Where in its interval a trigger polls, in [0, interval): triggers of one interval spread over it, in steps."""
    fraction = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big") / 2**64
    return _in_steps(fraction * interval, interval)


def next_poll(*, now: float, interval: float, uid: str, chance: float, jitter: float = JITTER) -> float:
    """The time of the poll that follows one made (or missed) at ``now``: the next point of the trigger's grid.

    Points that passed while a poll took long are left out, so that a slow function is never called in a burst. A point
    nearer than half an interval is left out too: the first poll after a start is made at once, off the grid.
    ``chance`` is in [0, 1), and adds whole steps.
    """
    offset = phase(uid, interval)
    point = offset + math.ceil((now + interval / 2 - offset) / interval) * interval
    return point + _in_steps(chance * min(jitter * interval, LONGEST_JITTER), interval)


def after_errors(*, now: float, interval: float, errors: int, chance: float) -> float:
    """The time of the next poll after ``errors`` (at least 1) failed ones in a row: exponential, within bounds.

    The interval doubles with each error up to 10 intervals, but at least to a minute and at most to an hour (or to the
    interval itself, where that is longer). Up to a tenth is added by ``chance``, in [0, 1).
    """
    longest = max(interval, min(max(10 * interval, 60.0), 3600.0))
    delay = longest if errors > 40 else min(interval * 2.0 ** (errors - 1), longest)
    return now + max(interval, delay) * (1 + 0.1 * chance)


def _in_steps(seconds: float, interval: float) -> float:
    step = min(STEP, interval / 5)
    return math.floor(seconds / step) * step
