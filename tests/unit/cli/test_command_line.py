"""The command line as a whole: help, exit codes, errors in one sentence, a quick start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from cloaca.cli.main import SECTIONS, app

ENTRIES = [entry for entries in SECTIONS.values() for entry in entries]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_command_has_help_with_an_example_and_says_what_the_list_says(entry: Any, cloaca: Any) -> None:
    said = cloaca(entry.name, "--help")
    assert (said.code, said.err) == (0, "")
    body = " ".join(said.out.split())
    assert entry.summary in body
    assert f"Example: cloaca {entry.name}" in body or f"cloaca {entry.name}" in body.partition("Example: ")[2]
    assert "--home" in body
    assert "--debug" in body


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_option_and_argument_is_explained(entry: Any) -> None:
    root: Any = typer.main.get_command(app)
    context = root.make_context("cloaca", [entry.name])
    command = root.get_command(context, entry.name)
    silent = [p.name for p in command.params if not getattr(p, "help", None)]
    assert silent == []


def test_the_help_names_every_command_and_has_no_boxes(cloaca: Any) -> None:
    said = cloaca("--help")
    assert said.code == 0
    assert [entry.name for entry in ENTRIES if f"  {entry.name} " not in said.out] == []
    assert not set("╭│─╮\x1b") & set(said.out)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(["gett"], "there is no command 'gett': did you mean 'get'?", id="unknown command"),
        pytest.param(["get", "crun", "--nope"], "No such option: --nope", id="unknown option"),
        pytest.param(["get"], "Missing argument 'WHAT'.", id="missing argument"),
        pytest.param(
            ["get", "crun", "-o", "toml"],
            "'toml' is not one of 'table', 'wide', 'yaml', 'json', 'name'",
            id="wrong choice",
        ),
    ],
)
def test_a_wrong_call_is_usage_and_exits_with_2(words: list[str], sentence: str, cloaca: Any) -> None:
    said = cloaca(*words)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert "Traceback" not in said.err


def test_no_words_show_the_help_as_usage(cloaca: Any) -> None:
    said = cloaca()
    assert said.code == 2
    assert "Usage: cloaca" in said.out + said.err


def test_an_error_is_one_sentence_and_exits_with_1(cloaca: Any) -> None:
    said = cloaca("get", "crun")
    home = cloaca.home.root
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        f"Error: nothing was ever deployed in the home {home}: start `cloaca daemon` or apply something, "
        "or name another home with --home or $CLOACINA_HOME, or a cluster with --kube-context\n"
    )


@pytest.mark.parametrize("words", [["--debug", "get", "crun"], ["get", "crun", "--debug"]], ids=["before", "after"])
def test_debug_shows_the_traceback_wherever_it_stands(words: list[str], cloaca: Any) -> None:
    said = cloaca(*words)
    assert said.code == 1
    assert said.err.startswith("Traceback (most recent call last):")
    assert said.err.splitlines()[-1].startswith("Error: nothing was ever deployed")


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_home_may_stand_before_or_after_the_command(before: bool, cloaca: Any, tmp_path: Path) -> None:
    option = ["--home", str(tmp_path / "other")]
    said = cloaca(*([*option, "status"] if before else ["status", *option]))
    assert f"Home:       {tmp_path / 'other'}\n" in said.out


def test_a_broken_store_is_an_error_without_a_traceback(cloaca: Any) -> None:
    cloaca.home.root.mkdir()
    cloaca.home.database.write_bytes(b"this is no database, only text that stands in its place" * 100)
    said = cloaca("get", "crun")
    assert (said.code, said.out) == (1, "")
    assert str(cloaca.home.database) in said.err
    assert "Traceback" not in said.err


def test_a_home_that_cannot_be_made_is_an_error_that_names_it(cloaca: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "package.yaml").write_text(PACKAGE)
    said = cloaca("apply", "-f", "package.yaml", "--home", tmp_path / "file" / "home")
    assert (said.code, said.err) == (
        1,
        f"Error: the home {tmp_path}/file/home cannot be made: Not a directory; name another one with --home\n",
    )


def test_the_version_is_said(cloaca: Any) -> None:
    said = cloaca("version")
    assert (said.code, said.out.startswith("cloaca 0.1.0 (Python 3.")) == (0, True)


def test_whoever_reads_may_leave_early(tmp_path: Path) -> None:
    piped = f"{sys.executable} -m cloaca.cli.main --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("Usage: cloaca [OPTIONS] COMMAND [ARGS]...\n", "")


HEAVY = ("pydantic", "yaml", "rich", "sqlite3", "asyncio", "cloaca.resources", "cloaca.store")


def test_the_list_of_commands_imports_nothing_heavy() -> None:
    code = "from cloaca.cli.main import main; main(['--help'])"
    assert loaded_by(code, HEAVY).splitlines()[-1] == "[]"


def test_get_imports_only_what_a_table_needs() -> None:
    heavy = ("rich", "yaml", "cloaca.engine.execute", "cloaca.polling.worker", "cloaca.packages.archive")
    assert loaded_by("import cloaca.cli.get", heavy) == "[]\n"


def loaded_by(code: str, modules: tuple[str, ...]) -> str:
    """What ``code`` prints, and then which of ``modules`` are loaded."""
    code = f"{code}\nimport sys\nprint([m for m in sys.argv[1:] if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True)
    return done.stdout


PACKAGE = """
apiVersion: cloacina.io/v1alpha1
kind: CloacinaPackage
metadata: {name: demo}
spec: {source: {url: "file:///tmp/demo-1.0.0.cloacina"}}
"""
