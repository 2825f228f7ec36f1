"""Make the three standard streams of a program usable, whatever its caller left of them. Writes nothing itself.

Cron jobs, service managers and ``>&-`` start programs whose standard streams are closed. Python then has None in their
place, and the next file that is opened, perhaps a database, gets descriptor 1 and everything that is printed.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from cloaca.packages.process import open_descriptors

NAMES = ("stdin", "stdout", "stderr")


class _BestEffort(io.FileIO):
    """A file whose writes never fail: what cannot be written is dropped."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data) or 0  # type: ignore[arg-type]  # the io module hands over bytes-like objects
        except OSError:
            return len(memoryview(data))  # type: ignore[arg-type]  # likewise


def open_standard_streams() -> None:
    """Open closed standard streams on the null device, and let no character and no error message end the program.

    Characters that standard output cannot encode are escaped. Writes to standard error that fail are dropped: there is
    nowhere left to report them to, and they must not change the exit code. Call it first of all in a program.
    """
    open_descriptors()
    for number, name in enumerate(NAMES):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            mode = "r" if name == "stdin" else "w"
            replacement = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115  # lives as long as the program
            setattr(sys, name, replacement)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:
        sys.stderr = _best_effort(sys.stderr)


def silence(stream: TextIO) -> None:
    """Send what is still buffered, and everything after it, to the null device: writing to ``stream`` has failed."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # it has no descriptor of its own
        return


def _best_effort(stream: TextIO) -> TextIO:
    try:
        raw = _BestEffort(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):  # a replacement without a descriptor
        return stream
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)
