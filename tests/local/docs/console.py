"""Run the console sessions that documents show, and compare what they print with what the documents say.

A document is one session, in an empty home. In it

- a ```` ```console ```` block holds commands, each after ``$ `` (``> `` goes on), and below each what it prints, or
  nothing, where that is of no interest. ``…`` stands for anything in a line; a line of ``…`` alone for any lines;
- a block after ``<!-- file: some/path.py -->`` is written to that file.

A command must succeed, unless what it prints begins with ``Error:``. Commands that only look (``cloaca get`` and the
like) are repeated until they show what the document shows: things take their time.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PATIENCE = 30.0  # seconds until a command must have shown what the document shows

_FENCE = re.compile(r"^```(?P<language>\w*)[^`]*$")
_FILE = re.compile(r"^<!-- file: (?P<path>\S+) -->$")
_LOOKS = re.compile(r"^(cloaca (get|describe|logs|status)|ls|cat)\b")
_END = "end-of-command"


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a session."""

    line: int
    text: str
    shown: tuple[str, ...]  # what the document says it prints; empty: anything

    @property
    def fails(self) -> bool:
        """Whether the document shows an error."""
        return bool(self.shown) and self.shown[0].startswith("Error:")

    @property
    def only_looks(self) -> bool:
        """Whether it may be repeated."""
        return _LOOKS.match(self.text) is not None


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that the reader is asked to write."""

    line: int
    path: str
    content: str


def blocks(markdown: str) -> list[tuple[int, str, str, list[str]]]:
    """The fenced blocks: number of the first line in it, language, the line before the fence, lines."""
    found = []
    lines = markdown.splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        end = next(index for index in range(number + 1, len(lines)) if lines[index].rstrip() == "```")
        before = lines[number - 1] if number else ""
        found.append((number + 2, opening["language"], before, lines[number + 1 : end]))
        number = end + 1
    return found


def steps(markdown: str) -> list[Command | File]:
    """What a reader of the document does, in order."""
    found: list[Command | File] = []
    for first, language, before, lines in blocks(markdown):
        file = _FILE.match(before)
        if file is not None:
            found.append(File(line=first, path=file["path"], content="\n".join(lines) + "\n"))
        elif language == "console":
            found.extend(_commands(first, lines))
    return found


def _commands(first: int, lines: list[str]) -> list[Command]:
    texts: list[tuple[int, list[str], list[str]]] = []
    for number, line in enumerate(lines, start=first):
        if line.startswith("$ "):
            texts.append((number, [line[2:]], []))
        elif line.startswith("> ") and texts and not texts[-1][2]:
            texts[-1][1].append(line[2:])
        elif texts:
            texts[-1][2].append(line.rstrip())
        else:
            raise ValueError(f"line {number}: a console block begins with a command: '$ …'")
    return [
        Command(line=number, text="\n".join(text), shown=tuple(shown) if any(shown) else ())
        for number, text, shown in texts
    ]


def agrees(shown: tuple[str, ...], printed: str) -> bool:
    """Whether ``printed`` is what a document shows; runs of spaces count as one, as the widths of columns vary."""
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else _line_pattern(line) + r"\n" for line in shown)
    plain = "".join(f"{' '.join(line.split())}\n" for line in printed.strip("\n").splitlines())
    return re.fullmatch(pattern, plain) is not None


def _line_pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in " ".join(line.split()).split("…"))


class Shell:
    """A bash in an empty home, which every command of a document goes through; all of it ends with the block."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __enter__(self) -> Shell:
        path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=self._home,
            env={"HOME": str(self._home), "PATH": path, "LANG": "C.UTF-8", "COLUMNS": "200", "TERM": "dumb"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._bash.pid, signal.SIGTERM)  # what runs in the background is in its group
        try:
            self._bash.communicate(timeout=15)  # ends when the last one has closed its output
        except subprocess.TimeoutExpired:
            os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.communicate()

    def run(self, text: str) -> tuple[str, int]:
        """What the command printed, and its exit code. A command that never ends is ended by the test's own limit."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{{ {text}\n}} </dev/null\nprintf '\\n{_END} %s\\n' $?\n".encode())
        self._bash.stdin.flush()
        printed: list[str] = []
        for raw in self._bash.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            if line.startswith(_END):
                return "\n".join(printed), int(line.split()[1])
            printed.append(line)
        return "\n".join(printed), self._bash.wait()

    def write(self, file: File) -> None:
        """Write the file, where the session stands now."""
        folder, _ = self.run("pwd")
        path = Path(folder.strip()) / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content)

    def obey(self, command: Command) -> None:
        """Run it; fails where what happens is not what the document shows."""
        deadline = time.monotonic() + PATIENCE
        while True:
            printed, code = self.run(command.text)
            good = (code != 0) is command.fails and (not command.shown or agrees(command.shown, printed))
            if good:
                return
            if not command.only_looks or time.monotonic() > deadline:
                shown = "\n".join(command.shown) or "(anything)"
                raise AssertionError(
                    f"line {command.line}: $ {command.text}\nexit code {code}; it printed:\n{printed}\n"
                    f"--- the document shows:\n{shown}"
                )
            time.sleep(0.1)


def play(markdown: str, home: Path) -> int:
    """Do what a reader of the document does; returns the number of steps. Raises AssertionError at the first that
    goes otherwise than the document says."""
    todo = steps(markdown)
    with Shell(home) as shell:
        for step in todo:
            if isinstance(step, File):
                shell.write(step)
            else:
                shell.obey(step)
    return len(todo)
