"""Durations as authors write them: an integer and ``ms``, ``s``, ``m`` or ``h``."""

from __future__ import annotations

import re

from cloaca.errors import DefinitionError

_FORM = re.compile(r"([0-9]{1,12})(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

FORMS = "an integer and ms, s, m or h, such as 500ms, 5s, 10m, 1h"


def parse_duration(text: str) -> float:
    """Seconds that ``text`` stands for.

    >>> parse_duration("500ms")
    0.5
    >>> parse_duration("10m")
    600.0

    Raises DefinitionError, which shows the accepted forms, for anything else.
    """
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise DefinitionError(f"{text!r} is not a duration: write {FORMS}")
    return int(match[1]) * _SECONDS[match[2]]


def format_duration(seconds: float) -> str:
    """The shortest spelling that ``parse_duration`` reads back.

    >>> format_duration(600)
    '10m'
    >>> format_duration(1.5)
    '1500ms'
    """
    milliseconds = round(seconds * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
