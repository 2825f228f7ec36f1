"""What a test defines ends with the test."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from cloaca.authoring.registry import Registry, collecting

hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True)
def registry() -> Iterator[Registry]:
    with collecting() as registry:
        yield registry
