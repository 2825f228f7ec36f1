"""What a test defines ends with the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloaca.authoring.registry import Registry, collecting


@pytest.fixture(autouse=True)
def registry() -> Iterator[Registry]:
    with collecting() as registry:
        yield registry
