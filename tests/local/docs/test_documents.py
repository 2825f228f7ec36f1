"""The documents are true: their sessions run, their links lead somewhere, their code and commands are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from local.docs import cli_page
from local.docs.console import blocks, play, steps

from cloaca.authoring.registry import collecting
from cloaca.errors import CloacaError

ROOT = Path(__file__).parents[3]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/data-ingest/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SESSIONS = [path for path in DOCUMENTS if steps(path.read_text())]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SESSIONS, ids=name)
def test_a_session_goes_as_the_document_shows(path: Path, tmp_path: Path) -> None:
    assert play(path.read_text(), tmp_path) > 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_leads_to_a_file_of_the_checkout(path: Path) -> None:
    text = path.read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    local = [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_command_that_is_named_exists_with_its_options(path: Path) -> None:
    from cloaca.cli.main import app

    root: Any = typer.main.get_command(app)
    for line, language, _, lines in blocks(path.read_text()):
        if language in ("", "console"):
            inner = [command for text in lines for command in re.findall(r"\$\(([^)]+)\)", text)]
            for text in (*lines, *inner):
                outer = re.sub(r"\$\([^)]+\)", "words", text).removeprefix("$ ")
                words = shlex.split(outer, comments=True) if "cloaca" in outer else []
                if words[:1] == ["cloaca"] and len(words) > 1 and not words[1].startswith("-"):
                    check_command(root, words[1:], f"{name(path)}:{line}: {text}")


def check_command(root: Any, words: list[str], where: str) -> None:
    words = words[: next((at for at, word in enumerate(words) if word in (">", "2>", "&", "|", "&&")), None)]
    try:
        context = root.make_context("cloaca", list(words))
        command = root.get_command(context, words[0])
        assert command is not None, "there is no such command"
        command.make_context(words[0], words[1:], parent=context)
    except Exception as error:  # whatever the parser calls it
        pytest.fail(f"{where}: {getattr(error, 'message', error)}")


def python_blocks() -> list[object]:
    return [
        pytest.param("\n".join(lines), id=f"{name(path)}:{line}")
        for path in DOCUMENTS
        for line, language, _, lines in blocks(path.read_text())
        if language == "python"
    ]


@pytest.mark.parametrize("code", python_blocks())
def test_every_piece_of_python_is_valid_and_its_triggers_and_workflows_can_be_declared(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what a document opens, it opens here
    with collecting():
        exec(compile(f"import cloaca\n{code}", "document", "exec"), {"__name__": "document"})


def test_the_page_of_errors_names_every_error() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    classes = [CloacaError, *descendants(CloacaError)]
    named = {found.__name__ for found in classes if found.__module__ == "cloaca.errors"}
    assert sorted(error for error in named if f"`{error}`" not in page) == []
    shown = set(re.findall(r"^\| (?:&ensp;)*`(\w+)`", page, re.MULTILINE))
    assert sorted(shown - named) == []


def descendants(root: type) -> list[type]:
    return [child for direct in root.__subclasses__() for child in (direct, *descendants(direct))]


def test_the_page_of_the_package_format_names_every_rule() -> None:
    page = (ROOT / "docs/reference/package-format.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "cloaca/packages").glob("*.py"))
    rules = set(re.findall(r"rule=\"(\w+)\"", code)) | set(re.findall(r"_broken\(\s*\"(\w+)\"", code))
    rules |= set(re.findall(r"_repeated\([^)]*\"(\w+)\"\)", code))
    assert len(rules) > 10
    assert sorted(rule for rule in rules if rule not in page) == []


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    assert (ROOT / "docs/reference/cli.md").read_text() == cli_page.page(), f"run: python {cli_page.__file__}"
