"""What tests on a cluster share: Helm."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster.chart.helm_binary import HelmMissing, built_helm


@pytest.fixture(scope="session")
def helm() -> Path:
    """``$HELM``, or Helm built once from its Go module into the cache."""
    try:
        return built_helm()
    except HelmMissing as error:
        pytest.skip(str(error))
