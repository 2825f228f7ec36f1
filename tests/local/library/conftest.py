"""What a test defines ends with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest

from cloaca.authoring.registry import Registry, collecting


@pytest.fixture(autouse=True)
def registry() -> Iterator[Registry]:
    with collecting() as registry:
        yield registry


@pytest.fixture(params=["memory", "file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a fresh database."""
    if request.param == "postgres":
        return postgres_server.shared().url()
    return ":memory:" if request.param == "memory" else str(tmp_path / "runs.db")


@pytest.fixture(params=["file", "postgres"])
def lasting(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database that outlives its runners."""
    return str(tmp_path / "runs.db") if request.param == "file" else postgres_server.shared().url()
