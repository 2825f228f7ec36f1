"""Tell which variables a package adds to its processes on this machine. Reads objects only."""

from __future__ import annotations

from collections.abc import Mapping

from cloaca.resources import CloacinaPackage


def environment_of(package: CloacinaPackage) -> Mapping[str, str]:
    """The variables that the package's podTemplate sets to plain values, over all its containers.

    Values from Secrets and ConfigMaps exist on a cluster only; on a laptop they come from the daemon's environment.
    """
    template = package.spec.pod_template or {}
    containers = template.get("spec", {}).get("containers", [])
    return {
        entry["name"]: str(entry["value"])
        for container in containers
        for entry in container.get("env", [])
        if "value" in entry
    }
