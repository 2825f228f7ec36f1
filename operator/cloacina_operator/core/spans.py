"""Turn the seconds of a spec into a time span that can be added to any date of an object. Pure."""

from __future__ import annotations

from datetime import timedelta

LONGEST = 100 * 366 * 86_400  # seconds; an object that was stored before the CRDs had bounds may say more


def lasting(seconds: int) -> timedelta:
    """``seconds``, or a hundred years where that is less.

    >>> lasting(90)
    datetime.timedelta(seconds=90)
    """
    return timedelta(seconds=min(seconds, LONGEST))
