"""Lay out tables and ages as kubectl does. Pure: text in, text out, and the time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from cloaca.resources.columns import Column
from cloaca.resources.meta import Resource

GAP = 3  # spaces between columns

MINUTE, HOUR, DAY = 60, 3600, 86_400
YEAR = 365 * DAY


def age(since: datetime, now: datetime) -> str:
    """How long ago, short, as kubectl says it.

    >>> age(datetime(2026, 3, 28, 9, 0), datetime(2026, 3, 28, 9, 5, 12))
    '5m12s'
    """
    return duration(int((now - since).total_seconds()))


def duration(seconds: int) -> str:
    """``seconds`` in one or two units; two only where the second one still matters.

    >>> [duration(seconds) for seconds in (95, 312, 3600, 14_000, 200_000)]
    ['95s', '5m12s', '60m', '3h53m', '2d7h']
    """
    if seconds < -1:
        return "<invalid>"
    if seconds < 2 * MINUTE:
        return f"{max(seconds, 0)}s"
    if seconds < 10 * MINUTE:
        return _two(seconds, MINUTE, "m", 1, "s")
    if seconds < 3 * HOUR:
        return f"{seconds // MINUTE}m"
    if seconds < 8 * HOUR:
        return _two(seconds, HOUR, "h", MINUTE, "m")
    if seconds < 2 * DAY:
        return f"{seconds // HOUR}h"
    if seconds < 8 * DAY:
        return _two(seconds, DAY, "d", HOUR, "h")
    if seconds < 2 * YEAR:
        return f"{seconds // DAY}d"
    return _two(seconds, YEAR, "y", DAY, "d") if seconds < 8 * YEAR else f"{seconds // YEAR}y"


def _two(seconds: int, big: int, big_unit: str, small: int, small_unit: str) -> str:
    rest = seconds % big // small
    return f"{seconds // big}{big_unit}" + (f"{rest}{small_unit}" if rest else "")


def took(seconds: float) -> str:
    """How long something took.

    >>> [took(0.0042), took(0.31), took(12.04), took(312)]
    ['4ms', '0.31s', '12.0s', '5m12s']
    """
    if seconds < 0.1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.2f}s"
    return f"{seconds:.1f}s" if seconds < 2 * MINUTE else duration(int(seconds))


def rows_of(
    columns: Sequence[Column], objects: Sequence[Resource[Any, Any]], now: datetime, *, prefix: str = "", spaces: bool
) -> list[list[str]]:
    """A row an object: namespace if ``spaces``, name behind ``prefix``, then the columns."""
    rows = []
    for obj in objects:
        document = obj.to_json_dict()
        first = [obj.metadata.namespace] if spaces else []
        rows.append([*first, f"{prefix}{obj.name}", *(cell(column, column.value(document), now) for column in columns)])
    return rows


def headers_of(columns: Sequence[Column], *, spaces: bool) -> list[str]:
    """The header of what ``rows_of`` gives."""
    return [*(["NAMESPACE"] if spaces else []), "NAME", *(column.header.upper() for column in columns)]


def columns_of(kind: type[Resource[Any, Any]], *, wide: bool) -> tuple[Column, ...]:
    """What a table shows of the kind."""
    return tuple(column for column in kind.COLUMNS if wide or column.priority == 0)


def cell(column: Column, value: Any, now: datetime) -> str:
    """One value as text: of text its first line, of a date its age."""
    if value is None:
        return ""
    if column.type == "date":
        return age(_moment(value), now)
    if isinstance(value, bool):
        return "true" if value else "false"
    return first_line(str(value))


def first_line(text: str) -> str:
    """The first line, with dots where it is not the last."""
    lines = text.strip().splitlines()
    return "" if not lines else lines[0] if len(lines) == 1 else f"{lines[0]}..."


def widths_of(rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column must be."""
    return [max(len(row[index]) for row in rows) for index in range(len(rows[0]))] if rows else []


def line(row: Sequence[str], widths: Sequence[int]) -> str:
    """One row."""
    return (" " * GAP).join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its header first."""
    widths = widths_of([headers, *rows])
    return [line(row, widths) for row in (headers, *rows)]


def _moment(value: Any) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
