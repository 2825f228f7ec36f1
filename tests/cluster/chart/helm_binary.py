"""Build Helm from its Go module, once for each version, into the cache outside the tree. Downloads Go modules only."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.binaries import Unavailable
from cluster.go_programs import built

MODULE = Path(__file__).parent / "helm"
KUBERNETES = ("1", "34")
"""The version that `helm template` renders for; it is set when Helm is linked, and 1.20 where nobody does."""


class HelmMissing(Exception):
    """There is no Helm and none can be built; the text says what to do."""


def built_helm() -> Path:
    """Path of a Helm: ``$HELM``, or one built from its Go module. Raises HelmMissing."""
    given = os.environ.get("HELM")
    if given:
        return Path(given)
    versions = [
        f"-X helm.sh/helm/v3/pkg/{package}.k8sVersion{part}={number}"
        for package in ("chartutil", "lint/rules")
        for part, number in zip(("Major", "Minor"), KUBERNETES, strict=True)
    ]
    try:
        return built(MODULE, "helm.sh/helm/v3/cmd/helm", linker=versions)
    except Unavailable as error:
        raise HelmMissing(f"Helm is built from its Go module: {error}; or set HELM to a Helm 3") from error


if __name__ == "__main__":
    print(built_helm())
