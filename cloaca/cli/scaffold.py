"""The command ``new``: a folder that packs, checks and polls at once. Writes that folder and nothing else."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from cloaca.cli.session import Session, command, commands
from cloaca.cli.terminal import say
from cloaca.errors import CloacaError

app = commands()

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")

PYPROJECT = Template("""\
[project]
name = "$name"
version = "0.1.0"
description = "What $name does, in a line"
requires-python = ">=3.10"

[tool.cloaca]
entry_module = "$module"

[[tool.cloaca.triggers]]
name = "new_file"
workflow = "$module"
config = { inbox = "inbox" }
""")

MODULE = Template('''\
"""Greet each file that arrives in an inbox: replace both by what you need."""

from pathlib import Path

import cloaca

with cloaca.WorkflowBuilder("$module") as builder:
    builder.description("Count the lines of a file and say so")

    @cloaca.task(id="count")
    def count(context):
        """Count the lines of the file that the trigger found."""
        context.set("lines", len(Path(context["path"]).read_text().splitlines()))

    @cloaca.task(id="greet", dependencies=["count"])
    def greet(context):
        """Say what was found."""
        context.set("greeting", f"hello {Path(context['path']).name}, {context['lines']} lines")
        print(context["greeting"])


@cloaca.trigger(name="new_file", poll_interval="5s")
def new_file(config):
    """Fire for each file in the inbox; its name is the key, so that it fires once, ever."""
    inbox = Path(config["inbox"])
    files = sorted(path for path in inbox.glob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        return cloaca.TriggerResult.skip(f"no file in {inbox.absolute()}")
    return [cloaca.TriggerResult.fire({"path": str(path.absolute())}, key=path.name) for path in files]
''')

TEST = Template('''\
"""The workflow and its trigger, without a daemon: ``python -m pytest``."""

import cloaca

import $module


def test_an_empty_inbox_is_no_reason_to_run(tmp_path):
    assert $module.new_file({"inbox": tmp_path}).is_skip_result()


def test_a_file_fires_and_is_counted(tmp_path):
    (tmp_path / "a.txt").write_text("one\\ntwo\\n")
    [fire] = $module.new_file({"inbox": tmp_path})
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("$module", fire.context)
    assert (fire.key, result.status, result.final_context["greeting"]) == ("a.txt", "Completed", "hello a.txt, 2 lines")
''')

README = Template("""\
# $name

A package for Cloacina: the workflow `$module` and the trigger `new_file`, which fires for each file in a folder.

    cloaca check .                          # everything that could keep it from being accepted
    cloaca poll . new_file                  # what the trigger decides right now; submits nothing
    cloaca run . --context '{"path": "README.md"}'
    cloaca pack .                           # $name-0.1.0.cloacina
    cloaca daemon &                         # deploys what is copied into its packages folder
    cp $name-0.1.0.cloacina ~/.cloacina/packages/
    cloaca get cpkg,ctrig,crun

The name in `@cloaca.trigger(name=…)` and in `[[tool.cloaca.triggers]]` must be the same.
""")

CONFTEST = '''\
"""Lets the tests import the package from this folder, wherever they are started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
'''

IGNORED = "__pycache__/\n*.cloacina\n"


@command(app, "new", anywhere=False)
def new(
    session: Session,  # noqa: ARG001  # every command gets it
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the package, and of its folder.", show_default=False)],
    folder: Annotated[
        Path | None, typer.Option("--in", help="Where to make the folder, instead of here.", show_default=False)
    ] = None,
) -> None:
    """Start a package: a folder that packs, checks and polls at once.

    \b
    Example:
      cloaca new data-ingest
      cloaca check data-ingest
    """
    root = (folder or Path()) / name
    write_scaffold(name, root)
    say(f"{root} created: a workflow, a trigger, a test", "", *(f"  cloaca {verb} {root}" for verb in _NEXT))


_NEXT = ("check", "poll", "pack")


def write_scaffold(name: str, root: Path) -> None:
    """Write the files of a new package. Raises CloacaError for a name that no package can have, or a folder in use."""
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > 40:
        raise CloacaError(f"{name!r} is no name for a package: up to 40 letters a-z, digits, '-', such as data-ingest")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in ("cloaca", "vendor"):
        raise CloacaError(f"{name!r} is taken: Python has a module {module!r}; choose another name")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise CloacaError(f"{root} is there already and not empty: choose another name, or another folder with --in")
    names = {"name": name, "module": module}
    files = {
        "pyproject.toml": PYPROJECT.substitute(names),
        f"{module}/__init__.py": MODULE.substitute(names),
        f"tests/test_{module}.py": TEST.substitute(names),
        "conftest.py": CONFTEST,
        "README.md": README.substitute(names),
        ".gitignore": IGNORED,
    }
    try:
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CloacaError(f"{error.filename or root} cannot be written: {error.strerror or error}") from error
