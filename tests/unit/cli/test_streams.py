"""What commands write where standard output has another encoding, is not read, or a connection breaks."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloaca.cli.main import main
from cloaca.cli.session import Session

OBJECT = """
apiVersion: cloacina.io/v1alpha1
kind: CloacinaPackage
metadata: {name: demo, annotations: {example.com/note: "grün ☂ 𝄞"}}
spec: {suspend: true, source: {url: "file:///nonexistent/demo.cloacina"}}
"""


def printed(words: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What a command writes to a standard output of that encoding."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert main(words) == 0
    return written.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_programs_read_is_the_same_in_every_encoding(
    encoding: str, cloaca: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo.yaml").write_text(OBJECT, encoding="utf-8")
    assert cloaca("apply", "-f", "demo.yaml").code == 0
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        text = printed(["get", "cpkg", "demo", "-o", form], encoding, monkeypatch).decode(encoding)
        assert read(text)["metadata"]["annotations"] == {"example.com/note": "grün ☂ 𝄞"}


def test_what_people_read_has_escapes_for_what_cannot_be_encoded(
    cloaca: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo.yaml").write_text(OBJECT, encoding="utf-8")
    assert cloaca("apply", "-f", "demo.yaml").code == 0
    assert b"gr\\xfcn \\u2602" in printed(["describe", "cpkg", "demo"], "ascii", monkeypatch)


def test_a_connection_that_breaks_is_not_taken_for_a_reader_that_left(
    cloaca: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(Session, "with_store", broken)
    said = cloaca("get", "crun")
    assert (said.code, said.err) == (1, "Error: `cloaca get`: the other end closed a connection: try again\n")


@pytest.mark.parametrize("words", ["--help", "get --help", "version"])
def test_a_reader_that_leaves_is_no_error(words: str) -> None:
    piped = f"{sys.executable} -u -m cloaca.cli.main {words} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_call_is_one_also_where_nobody_can_be_told() -> None:
    called = f"{sys.executable} -m cloaca.cli.main get --nope >/dev/full 2>/dev/full"
    assert subprocess.run(["bash", "-c", called]).returncode == 2
