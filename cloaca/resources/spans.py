"""Durations in the specs of objects: as Go writes them, or as authors do. Knows no object."""

from __future__ import annotations

import re

from cloaca.errors import DefinitionError

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h)")
_SPAN = re.compile(rf"(?:{_PART.pattern}){{1,6}}")
_LONGEST = 64  # characters
LONGEST_SPAN = 999_999 * 3600.0  # seconds

SPAN_FORMS = "numbers with ns, us, ms, s, m or h, such as 500ms, 1.5s or 1h30m"


def parse_span(text: str) -> float:
    """Seconds that a duration in the spec of an object stands for: as Go writes them, or as ``parse_duration`` reads.

    >>> parse_span("1h30m")
    5400.0
    >>> parse_span("1.5s")
    1.5

    Raises DefinitionError, which shows the accepted forms, for anything else.
    """
    if not isinstance(text, str) or len(text) > _LONGEST or not _SPAN.fullmatch(text):
        raise DefinitionError(f"{text!r} is not a duration: write {SPAN_FORMS}")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    if seconds > LONGEST_SPAN:
        raise DefinitionError(f"{text!r} is longer than a duration may be, 999999h: write {SPAN_FORMS}")
    return seconds
