"""Write to standard output: colours for a person at a terminal, plain text for everybody else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

GOOD, BAD, BUSY, DIM, BOLD = "32", "31", "36", "2", "1"

_COLOURS = {
    **dict.fromkeys(("Completed", "Fired", "ok", "Fire"), GOOD),
    **dict.fromkeys(("Failed", "Cancelled", "Error", "fault"), BAD),
    **dict.fromkeys(("Running", "Blocked", "Deduplicated", "warning"), BUSY),
    **dict.fromkeys(("Pending", "Skipped", "Skip"), DIM),
}


def coloured(stream: TextIO | None = None) -> bool:
    """Whether colours are for ``stream`` (standard output): a terminal, and nobody asked for none."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str, stream: TextIO | None = None) -> str:
    """``text`` in a colour, where colours are wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if coloured(stream) else text


def styled(word: str, stream: TextIO | None = None) -> str:
    """A word such as a phase or a status in its colour; blanks around it stay."""
    code = _COLOURS.get(word.strip())
    return word if code is None else paint(word, code, stream)


def say(*lines: str) -> None:
    """Lines of the answer."""
    for line in lines:
        print(line, flush=True)


def remark(*lines: str) -> None:
    """Lines beside the answer, which a program that reads it must not see."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def block(lines: Iterable[str], indent: str = "  ") -> list[str]:
    """Lines with an indent; empty ones stay empty."""
    return [f"{indent}{line}" if line else "" for line in lines]
