"""What a test defines ends with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloaca.authoring.registry import Registry, collecting


@pytest.fixture(autouse=True)
def registry() -> Iterator[Registry]:
    with collecting() as registry:
        yield registry


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a fresh database."""
    return ":memory:" if request.param == "memory" else str(tmp_path / "runs.db")
