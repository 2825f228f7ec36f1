"""Write docs/reference/cli.md from the commands themselves: ``.venv/bin/python tests/local/docs/cli_page.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from cloaca.cli.main import SECTIONS, app

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
WIDTH = 100

INTRODUCTION = """\
# Commands

What `cloaca --help` and each command's `--help` say. This page is generated (`python tests/local/docs/cli_page.py`);
a test fails when it is out of date.

Exit codes: 0, done; 1, it failed, and one sentence on standard error says why (`--debug`: with the traceback); 2, it
was called wrongly. Output is plain text where it does not go to a terminal.

A command that changes something is done also if its output could not be written: `cloaca fire` that fired exits with 0
where standard output is closed, full, or a pipe that nobody reads. One that shows something is not, except where its
reader left with what it wanted, as in `cloaca get runs | head -1`.
"""


def page() -> str:
    """The page as it should be."""
    root: Any = typer.main.get_command(app)
    parts = [INTRODUCTION]
    for title, entries in SECTIONS.items():
        parts.append(f"## {title}\n")
        for entry in entries:
            context = root.make_context("cloaca", [entry.name], terminal_width=WIDTH)
            command = root.get_command(context, entry.name)
            own = command.context_class(command, info_name=entry.name, parent=context, terminal_width=WIDTH)
            parts.append(f"### cloaca {entry.name}\n\n```text\n{command.get_help(own).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
