"""Build Helm from its Go module, once for each version, into the cache outside the tree. Downloads Go modules only."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
from pathlib import Path

from cluster.binaries import Unavailable, cache, go

MODULE = Path(__file__).parent / "helm"
KUBERNETES = ("1", "34")
"""The version that `helm template` renders for; it is set when Helm is linked, and 1.20 where nobody does."""


class HelmMissing(Exception):
    """There is no Helm and none can be built; the text says what to do."""


def built_helm() -> Path:
    """Path of a Helm. Raises HelmMissing."""
    given = os.environ.get("HELM")
    if given:
        return Path(given)
    found = re.search(r"helm\.sh/helm/v3 (v\S+)", (MODULE / "go.mod").read_text())
    assert found is not None
    place = cache() / "bin"
    program = place / f"helm-{found[1]}"
    if program.exists():
        return program
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".helm-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes of the tests would both build for minutes
        if not program.exists():
            _build(program)
    return program


def _build(program: Path) -> None:
    try:
        compiler = go()
    except Unavailable as error:
        raise HelmMissing(f"Helm is built from its Go module: {error}; or set HELM to a Helm 3") from error
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        made = Path(folder) / "helm"
        versions = [
            f"-X helm.sh/helm/v3/pkg/{package}.k8sVersion{part}={number}"
            for package in ("chartutil", "lint/rules")
            for part, number in zip(("Major", "Minor"), KUBERNETES, strict=True)
        ]
        flags = ["-mod=readonly", "-trimpath", "-ldflags", " ".join(["-s", "-w", *versions])]
        done = subprocess.run(
            [str(compiler), "build", *flags, "-o", str(made), "helm.sh/helm/v3/cmd/helm"],
            cwd=MODULE,
            env={**os.environ, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise HelmMissing(f"Helm could not be built from its Go module:\n{done.stderr[-2000:]}")
        made.rename(program)


if __name__ == "__main__":
    print(built_helm())
