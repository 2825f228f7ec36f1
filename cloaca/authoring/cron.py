"""When a cron expression comes due, in its time zone. Pure: times arrive as arguments and leave in UTC.

Daylight saving is as in Debian's cron. A job at a fixed time that falls into the hour which clocks skip runs when they
have; one that falls into the hour which they repeat runs once, the first time. A job with a wildcard hour or minute
follows the real time: it runs in both of the repeated hours, and in none of the skipped one.
"""

from __future__ import annotations

from cloaca.authoring.value import Value
from cloaca.errors import DefinitionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, tzinfo

FORMS = (
    "write five fields (minute hour day month weekday) such as '0 2 * * *' or '*/15 8-17 * * MON-FRI', "
    "six with seconds first, or @hourly, @daily, @weekly, @monthly or @yearly"
)

_LONGEST = 128  # characters
_FIELDS = (5, 6)
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Cron(Value):
    """An expression and the IANA time zone that it is meant in. ``parse_cron`` makes one that is known to be good."""

    expression: str
    time_zone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.expression} ({self.time_zone})"


def parse_cron(expression: str, time_zone: str = "UTC") -> Cron:
    """The schedule that the two texts mean. Raises DefinitionError (a ValueError), which says what is accepted.

    >>> parse_cron("0 2 * * *", "Europe/Zurich")
    Cron(expression='0 2 * * *', time_zone='Europe/Zurich')
    """
    check_time_zone(time_zone)
    check_expression(expression)
    return Cron(expression, time_zone)


def check_expression(expression: str) -> None:
    """Raise DefinitionError for what is no cron expression, and for one that never comes due."""
    from datetime import datetime, timezone

    from cronsim import CronSim, CronSimError

    if not isinstance(expression, str) or not expression.strip():
        raise DefinitionError(f"{expression!r} is no cron expression: {FORMS}")
    if len(expression) > _LONGEST:
        raise DefinitionError(f"a cron expression has at most {_LONGEST} characters, not {len(expression)}: {FORMS}")
    plain = _plain(expression)
    if len(plain.split()) not in _FIELDS:
        raise DefinitionError(f"{expression!r} is no cron expression: {FORMS}")
    start = datetime(2000, 1, 1, tzinfo=timezone.utc)
    try:
        never = next(CronSim(plain, start), None) is None
    except CronSimError as error:
        raise DefinitionError(f"{expression!r} is no cron expression ({str(error).lower()}): {FORMS}") from None
    except (ValueError, AssertionError):  # what the parser does not refuse by itself, such as a step of a last day
        raise DefinitionError(f"{expression!r} is no cron expression: {FORMS}") from None
    if never:
        raise DefinitionError(f"the cron expression {expression!r} never comes due: no such day exists")


def check_time_zone(name: str) -> None:
    """Raise DefinitionError for what is no IANA time zone that this machine knows."""
    _zone(name)


def next_time(cron: Cron, after: datetime) -> datetime | None:
    """The first time after ``after``, or None: never within the next 50 years.

    >>> from datetime import datetime, timezone
    >>> next_time(Cron("0 2 * * *", "Europe/Zurich"), datetime(2026, 1, 1, 12, tzinfo=timezone.utc)).isoformat()
    '2026-01-02T01:00:00+00:00'
    """
    return next(_times(cron, after), None)


def times_between(cron: Cron, after: datetime, until: datetime, limit: int) -> tuple[datetime, ...]:
    """The times after ``after`` up to and with ``until``, oldest first; the first ``limit`` of them."""
    found: list[datetime] = []
    for time in _times(cron, after):
        if time > until or len(found) >= limit:
            break
        found.append(time)
    return tuple(found)


def latest_time(cron: Cron, after: datetime, until: datetime) -> datetime | None:
    """The last time after ``after`` up to and with ``until``; None: there was none. Quick however many there were."""
    from datetime import timedelta

    window = timedelta(hours=1)
    while True:
        start = max(after, until - window)
        last = None
        for time in _times(cron, start):
            if time > until:
                break
            last = time
        if last is not None or start == after:
            return last
        window *= 4


def _times(cron: Cron, after: datetime) -> Iterator[datetime]:
    """Every time after ``after``, in UTC, in order."""
    from datetime import timezone

    from cronsim import CronSim

    last = after.astimezone(timezone.utc)
    # CronSim knows not which of two equal wall times it starts from: in the repeated hour some of its answers are past.
    for time in CronSim(_plain(cron.expression), last.astimezone(_zone(cron.time_zone))):
        found = time.astimezone(timezone.utc)
        if found > last:
            last = found
            yield found


def _plain(expression: str) -> str:
    return _NAMED.get(expression.strip().lower(), expression)


def _zone(name: str) -> tzinfo:
    from datetime import timezone
    from zoneinfo import ZoneInfo

    if name == "UTC":  # known to every machine, also to one without a time zone database
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):
        raise DefinitionError(
            f"{name!r} is no time zone that this machine knows: write an IANA name such as UTC, Europe/Zurich or "
            "America/New_York; where those are unknown too, install the package tzdata"
        ) from None
