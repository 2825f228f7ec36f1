"""Call the command line many times in forks of one process, which was started in an odd place.

``python odd_verbs.py JOBS ANSWERS``: JOBS is a JSON list of argument lists, ANSWERS gets their exit codes and what each
wrote to standard error, if that was not closed. An interpreter is started once a place, not once a command: what an odd
place does to it (no sys.stdout, another encoding, no docstrings) is inherited by the forks.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import sys
from pathlib import Path

from cloaca.cli import main as command_line

HIGH = 20  # descriptors that a command does not get by opening a file


def main() -> None:
    """Work through the jobs."""
    for entries in command_line.SECTIONS.values():
        for entry in entries:
            importlib.import_module(f"cloaca.cli.{entry.module}")
    answers = []
    for words in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        said = f"{sys.argv[2]}.stderr"
        child = os.fork()
        if child == 0:
            _capture_standard_error(said)
            sys.exit(command_line.main([os.fsdecode(word.encode()) for word in words]))  # as sys.argv would have it
        _, status = os.waitpid(child, 0)
        answers.append((os.waitstatus_to_exitcode(status), Path(said).read_text(encoding="utf-8", errors="replace")))
    Path(sys.argv[2]).write_text(json.dumps(answers), encoding="utf-8")


def _capture_standard_error(path: str) -> None:
    """Unless it is closed, or is to be full."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    high = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, HIGH)  # the lowest one may be of a stream that is closed
    os.close(file)
    try:
        is_a_pipe = not os.isatty(2) and os.fstat(2).st_rdev == 0
    except OSError:
        return
    if is_a_pipe:
        os.dup2(high, 2)


if __name__ == "__main__":
    main()
