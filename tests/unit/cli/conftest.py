"""The command line as a person meets it: words in, exit code and text out, on a real store in a home of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from cloaca.cli.main import main
from cloaca.home import Home
from cloaca.resources import KINDS, Resource
from cloaca.store import Store, open_store

T = TypeVar("T")

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Said:
    """What a call of the command line came to."""

    code: int
    out: str
    err: str


class Cloaca:
    """``cloaca(…)`` calls it on ``home``."""

    def __init__(self, home: Home, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.home = home
        self._capsys = capsys
        self._patch = patch

    def __call__(self, *words: object, stdin: str = "") -> Said:
        """Call it; a test runs in one thread, so this is a call as any other."""
        self._patch.setattr(sys, "stdin", StringIO(stdin))
        self._capsys.readouterr()
        code = main([str(word) for word in words])
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)

    def store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """What ``work`` returns, given the store of the home."""

        async def opened() -> T:
            self.home.root.mkdir(exist_ok=True)
            store = await open_store(str(self.home.database))
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(opened())

    def put(self, *objects: Resource[Any, Any]) -> None:
        """Create objects, status included; what they name as owner must be there."""

        async def work(store: Store) -> None:
            for obj in objects:
                await store.create(obj)

        self.store(work)

    def look(self, kind: type[Any], name: str, namespace: str = "default") -> Any:
        """The object, or None."""
        return self.store(lambda store: store.get(kind, name, namespace))


@pytest.fixture
def cloaca(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cloaca:
    home = Home(tmp_path / "home")
    monkeypatch.setenv("CLOACINA_HOME", str(home.root))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return Cloaca(home, capsys, monkeypatch)


@pytest.fixture
def world() -> list[Resource[Any, Any]]:
    """The objects of golden/world.yaml, status included."""
    kinds = {kind.KIND: kind for kind in KINDS}
    items = yaml.safe_load((GOLDEN / "world.yaml").read_text())["items"]
    return [kinds[item["kind"]].model_validate(item) for item in items]


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares a text with a golden file; UPDATE_GOLDEN=1 writes the file instead."""

    def compare(name: str, text: str) -> None:
        file = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            file.write_text(text)
        assert text == file.read_text(), (
            "if this is meant, run the tests once with UPDATE_GOLDEN=1 and look at the diff"
        )

    return compare
