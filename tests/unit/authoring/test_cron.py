"""When cron expressions come due: around clock changes, in bounded numbers, and never twice."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca.authoring.cron import (
    FORMS,
    Cron,
    check_expression,
    check_time_zone,
    latest_time,
    next_time,
    parse_cron,
    times_between,
)
from cloaca.errors import DefinitionError

UTC = timezone.utc


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "expression",
    [
        *("* * * * *", "*/5 * * * *", "0 2 * * *", "0 8-17/2 * * MON-FRI", "30 3 L * *", "0 9 * * 1#2"),
        *("*/10 * * * * *", "@hourly", "@daily", "@WEEKLY", " 0 0 29 2 * ", "0 0 31 * 1", "0 0 */31 2 *"),
    ],
)
def test_these_are_expressions(expression: str) -> None:
    assert parse_cron(expression, "Europe/Zurich") == Cron(expression, "Europe/Zurich")


@pytest.mark.parametrize(
    "expression",
    [
        *("", "  ", "invalid", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *"),
        *("* * * * 8", "*/0 * * * *", "5-1 * * * *", "a * * * *", "@never", "* * L/x * *", "* * LW/2-3 * *"),
        *("-1 * * * *", "٣ * * * *", None, 5, b"* * * * *"),
    ],
    ids=repr,
)
def test_anything_else_is_an_error_that_shows_the_accepted_forms(expression: Any) -> None:
    with pytest.raises(DefinitionError) as refusal:
        check_expression(expression)

    assert repr(expression) in str(refusal.value)
    assert FORMS in str(refusal.value)


def test_an_expression_is_bounded() -> None:
    with pytest.raises(DefinitionError, match="at most 128 characters, not 2007"):
        check_expression(",".join(["1"] * 1000) + " * * * *")


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6 *"])
def test_an_expression_that_never_comes_due_is_an_error(expression: str) -> None:
    with pytest.raises(DefinitionError, match="bad day-of-month"):
        check_expression(expression)


@pytest.mark.parametrize("name", ["UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata", "Etc/GMT+5"])
def test_iana_names_are_time_zones(name: str) -> None:
    check_time_zone(name)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "CEST+2", "../etc/passwd", "/etc/localtime", "Europe", "a\0b", "é", None, 5], ids=repr
)
def test_anything_else_is_an_error_that_names_examples(name: Any) -> None:
    with pytest.raises(DefinitionError) as refusal:
        check_time_zone(name)

    assert str(refusal.value).startswith(
        f"{name!r} is no time zone that this machine knows: write an IANA name such as"
    )


ZURICH = "Europe/Zurich"  # in 2026: 02:00 → 03:00 on 29 March, 03:00 → 02:00 on 25 October
NEW_YORK = "America/New_York"  # in 2026: 02:00 → 03:00 on 8 March, 02:00 → 01:00 on 1 November


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        (Cron("0 2 * * *"), "2026-01-01 02:00", ["2026-01-02 02:00", "2026-01-03 02:00"]),
        (Cron("0 2 * * *", ZURICH), "2026-01-01 00:00", ["2026-01-01 01:00", "2026-01-02 01:00"]),
        (Cron("0 2 * * *", ZURICH), "2026-07-01 00:00:00.5", ["2026-07-02 00:00", "2026-07-03 00:00"]),
        (Cron("30 2 * * *", ZURICH), "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:30"]),
        (Cron("30 2 * * *", ZURICH), "2026-03-29 01:00", ["2026-03-30 00:30"]),
        (Cron("0,30 2 * * *", ZURICH), "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:00"]),
        (Cron("*/30 * * * *", ZURICH), "2026-03-29 00:00", ["2026-03-29 00:30", "2026-03-29 01:00"]),
        (Cron("*/30 2 * * *", ZURICH), "2026-03-28 12:00", ["2026-03-30 00:00", "2026-03-30 00:30"]),
        (Cron("30 2 * * *", ZURICH), "2026-10-24 12:00", ["2026-10-25 00:30", "2026-10-26 01:30"]),
        (Cron("30 2 * * *", ZURICH), "2026-10-25 01:10", ["2026-10-26 01:30"]),
        (Cron("30 2 * * *", ZURICH), "2026-10-25 00:30", ["2026-10-26 01:30"]),
        (
            Cron("30 * * * *", ZURICH),
            "2026-10-25 00:00",
            ["2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 02:30"],
        ),
        (Cron("30 1 * * *", NEW_YORK), "2026-10-31 12:00", ["2026-11-01 05:30", "2026-11-02 06:30"]),
        (Cron("0 9 * * *", "Asia/Kolkata"), "2026-01-01 00:00", ["2026-01-01 03:30"]),
        (Cron("0 0 29 2 *"), "2026-01-01 00:00", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        (Cron("@daily", ZURICH), "2026-06-01 00:00", ["2026-06-01 22:00"]),
    ],
    ids=str,
)
def test_times_follow_the_clock_of_the_zone(cron: Cron, after: str, expected: list[str]) -> None:
    found = times_between(cron, utc(after), utc(after) + timedelta(days=9999), len(expected))

    assert [f"{time:%Y-%m-%d %H:%M}" for time in found] == expected
    assert all(time.tzinfo is UTC for time in found)
    assert next_time(cron, utc(after)) == found[0]


def test_the_times_of_a_span_have_its_end_and_not_its_start_and_are_bounded() -> None:
    cron, start = Cron("0 * * * *"), utc("2026-01-01 00:00")

    assert times_between(cron, start, start + timedelta(hours=3), 100) == tuple(
        start + timedelta(hours=hour) for hour in (1, 2, 3)
    )
    assert len(times_between(cron, start, start + timedelta(days=365), 5)) == 5
    assert times_between(cron, start, start, 5) == ()
    assert times_between(cron, start, start + timedelta(days=1), 0) == ()


def test_the_latest_of_years_of_minutes_is_found_at_once() -> None:
    cron = Cron("* * * * *", ZURICH)

    assert latest_time(cron, utc("1990-01-01"), utc("2026-01-01 12:34:56")) == utc("2026-01-01 12:34")


def test_nothing_was_missed_where_nothing_came_due() -> None:
    assert latest_time(Cron("0 0 29 2 *"), utc("2025-01-01"), utc("2027-01-01")) is None


# --- for any expression, zone and time

FIELD = st.sampled_from(["*", "0", "30", "*/15", "10-20", "5,45"])
HOURS = st.sampled_from(["*", "0", "1", "2", "3", "*/2", "1-3", "2,14"])
EXPRESSIONS = st.builds(
    "{} {} {} * {}".format,
    FIELD,
    HOURS,
    st.sampled_from(["*", "1", "25", "29"]),
    st.sampled_from(["*", "0", "MON-FRI"]),
)
ZONES = st.sampled_from([*("UTC", ZURICH, NEW_YORK, "Asia/Kolkata"), *("Australia/Lord_Howe", "America/Sao_Paulo")])
CRONS = st.builds(Cron, EXPRESSIONS, ZONES)
NEAR_CHANGES = st.sampled_from([utc("2026-03-29 01:00"), utc("2026-10-25 01:00"), utc("2026-03-08 07:00")])
MOMENTS = st.builds(lambda base, minutes: base + timedelta(minutes=minutes), NEAR_CHANGES, st.integers(-4000, 4000))


@given(CRONS, MOMENTS)
def test_the_next_time_is_later(cron: Cron, after: datetime) -> None:
    found = next_time(cron, after)

    assert found is not None
    assert found > after


@given(CRONS, MOMENTS, st.integers(1, 5))
def test_times_do_not_depend_on_where_the_search_starts(cron: Cron, after: datetime, skipped: int) -> None:
    until = after + timedelta(days=400)
    times = times_between(cron, after, until, 12)
    if len(times) > skipped:
        between = times[skipped - 1] + (times[skipped] - times[skipped - 1]) / 2
        assert next_time(cron, times[skipped - 1]) == times[skipped]
        assert next_time(cron, between) == times[skipped]


@given(CRONS, MOMENTS, st.integers(0, 6000))
def test_the_latest_time_is_the_last_of_all(cron: Cron, after: datetime, minutes: int) -> None:
    until = after + timedelta(minutes=minutes)
    every = times_between(cron, after, until, 10_000)

    assert list(every) == sorted(set(every))
    assert latest_time(cron, after, until) == (every[-1] if every else None)


@given(
    st.sampled_from(["*/20 * * * *", "* 2 * * *", "*/7 1-3 * * *", "15 * * * *", "* */3 * * MON-FRI"]), ZONES, MOMENTS
)
def test_wildcards_follow_the_wall_clock_minute_by_minute(expression: str, zone: str, after: datetime) -> None:
    """Against the plainest way to tell: look at every minute's wall time."""
    minutes, hours, _, _, days = expression.split()

    def matches(field: str, value: int) -> bool:
        base, _, step = field.partition("/")
        low, _, high = base.partition("-")
        within = base == "*" or int(low) <= value <= int(high or low)
        return within and (not step or (value - (0 if base == "*" else int(low))) % int(step) == 0)

    expected = []
    for minute in range(1, 60 * 30):
        moment = after + timedelta(minutes=minute)
        local = moment.astimezone(ZoneInfo(zone))
        weekday = days == "*" or local.weekday() < 5
        if weekday and matches(minutes, local.minute) and matches(hours, local.hour):
            expected.append(moment)

    assert (
        list(times_between(Cron(expression, zone), after, after + timedelta(minutes=60 * 30 - 1), 10_000)) == expected
    )
