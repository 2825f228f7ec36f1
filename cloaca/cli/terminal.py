"""Write to standard output: colours for a person at a terminal, plain text for everybody else.

A command that shows something has done nothing if it cannot be written; one that changes something has. So the first
kind uses ``print_answer``, which raises OutputLost, and the second ``say``, which goes on.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cloaca.errors import CloacaError
from cloaca.streams import silence

GOOD, BAD, BUSY, DIM, BOLD = "32", "31", "36", "2", "1"

_COLOURS = {
    **dict.fromkeys(("Completed", "Fired", "ok", "Fire"), GOOD),
    **dict.fromkeys(("Failed", "Cancelled", "Error", "fault"), BAD),
    **dict.fromkeys(("Running", "Blocked", "Deduplicated", "warning"), BUSY),
    **dict.fromkeys(("Pending", "Skipped", "Skip"), DIM),
}


class OutputLost(CloacaError):
    """Standard output cannot be written. What is written to it from now on is dropped."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror or error}")
        self.reader_left = error.errno == errno.EPIPE
        """Whether a pipe was closed by its reader, such as ``head``, which has all that it wants."""


def coloured(stream: TextIO | None = None) -> bool:
    """Whether colours are for ``stream`` (standard output): a terminal, and nobody asked for none."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR") and (os.environ.get("TERM") or "dumb") != "dumb"


def paint(text: str, code: str, stream: TextIO | None = None) -> str:
    """``text`` in a colour, where colours are wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if coloured(stream) else text


def styled(word: str, stream: TextIO | None = None) -> str:
    """A word such as a phase or a status in its colour; blanks around it stay."""
    code = _COLOURS.get(word.strip())
    return word if code is None else paint(word, code, stream)


@contextmanager
def writing() -> Iterator[None]:
    """Writes to standard output in this block raise OutputLost where they fail. Nothing else may happen in it."""
    try:
        yield
    except OSError as error:
        silence(sys.stdout)
        raise OutputLost(error) from error


def print_answer(*lines: str) -> None:
    """Lines of the answer that the command was called for. Raises OutputLost if they cannot be written."""
    with writing():
        for line in lines:
            print(line, flush=True)


def say(*lines: str) -> None:
    """Lines about what the command did. It is done, whether they can be written or not: never raises for that."""
    try:
        print_answer(*lines)
    except OutputLost as error:
        if not error.reader_left:
            remark(f"warning: {error}")


def json_text(value: Any) -> str:
    """``value`` as JSON for standard output, with escapes where its encoding has not all the characters."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text if can_be_written(text) else json.dumps(value, indent=2)


def can_be_written(text: str) -> bool:
    """Whether standard output has an encoding for every character of ``text``."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def remark(*lines: str) -> None:
    """Lines beside the answer, which a program that reads it must not see."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def block(lines: Iterable[str], indent: str = "  ") -> list[str]:
    """Lines with an indent; empty ones stay empty."""
    return [f"{indent}{line}" if line else "" for line in lines]
