"""Whoever deals out the tests sees their groups."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("grouped")
def test_a_test_is_dealt_out_with_its_group(request: pytest.FixtureRequest) -> None:
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("tests are dealt out in groups by `make unit` alone")
    assert request.node.nodeid.endswith("@grouped"), "each process starts a node and control planes of its own"
