"""The tutorial's own code, unchanged, in library mode."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TUTORIAL = Path(__file__).parents[2] / "tutorial"


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INBOX_PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def test_of_the_tutorial(registry: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """``test_trigger_and_workflow``, from modules that were imported for this test alone."""
    monkeypatch.syspath_prepend(TUTORIAL)
    yield importlib.import_module("library_mode").test_trigger_and_workflow
    for module in ("library_mode", "data_ingest"):
        del sys.modules[module]


def test_a_file_in_the_inbox_fires_and_the_workflow_completes(
    test_of_the_tutorial: Callable[[], None], inbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inbox / "orders_20260328.parquet").touch()

    test_of_the_tutorial()

    assert capsys.readouterr().out.splitlines() == [
        " Validating: orders_20260328.parquet",
        " Loading: orders_20260328.parquet",
        "Workflow status: Completed",
    ]


def test_an_empty_inbox_skips(
    test_of_the_tutorial: Callable[[], None], inbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inbox / "readme.txt").touch()

    test_of_the_tutorial()

    assert capsys.readouterr().out == ""


def test_the_module_registers_what_its_manifest_declares(
    test_of_the_tutorial: Callable[[], None], registry: Any
) -> None:
    assert list(registry.workflows) == ["data_ingest"]
    assert registry.workflows["data_ingest"].dependencies == {"validate": (), "load": ("validate",)}
    assert list(registry.triggers) == ["inbox_watcher"]
    assert registry.triggers["inbox_watcher"].poll_interval == "5s"
