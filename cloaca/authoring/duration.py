"""Durations as authors write them: an integer and ``ms``, ``s``, ``m`` or ``h``."""

from __future__ import annotations

from cloaca.errors import DefinitionError

_UNITS = (("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000))  # "ms" before its ending "s"
_DIGITS = 12  # more are a mistake: 12 digits of milliseconds are 31 years

FORMS = "an integer and ms, s, m or h, such as 500ms, 5s, 10m, 1h"


def parse_duration(text: str) -> float:
    """Seconds that ``text`` stands for.

    >>> parse_duration("500ms")
    0.5
    >>> parse_duration("10m")
    600.0

    Raises DefinitionError, which shows the accepted forms, for anything else.
    """
    if isinstance(text, str):
        for unit, milliseconds in _UNITS:
            if text.endswith(unit):
                number = text[: -len(unit)]
                if number.isascii() and number.isdigit() and len(number) <= _DIGITS:
                    return int(number) * milliseconds / 1000
                break
    raise DefinitionError(f"{text!r} is not a duration: write {FORMS}")


def format_duration(seconds: float) -> str:
    """The shortest spelling that ``parse_duration`` reads back, to the millisecond.

    >>> format_duration(600)
    '10m'
    >>> format_duration(1.5)
    '1500ms'
    """
    milliseconds = round(seconds * 1000)
    for unit, size in reversed(_UNITS):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return "0s"
