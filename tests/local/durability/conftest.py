"""Databases that outlive the processes which use them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import postgres_server
import pytest


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_server.Server]:
    """A server that writes through to the disk."""
    made = postgres_server.own_server(fsync=True)
    yield made
    made.remove()


@pytest.fixture(params=["sqlite file", "postgres"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes URLs of empty stores that outlive their processes."""
    if request.param == "postgres":
        return cast(Callable[[], str], request.getfixturevalue("server").url)
    numbers = itertools.count()
    return lambda: f"sqlite:///{tmp_path}/runs-{next(numbers)}.db"


@pytest.fixture
def url(fresh: Callable[[], str]) -> str:
    """Of one of them."""
    return fresh()
