"""The chart, rendered and applied to an API server, once for all its tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.chart.hostile import Scene, package, run, trigger
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl

CHART = Path(__file__).parents[3] / "manifests" / "chart"
PACKAGES = "chart-packages"


@pytest.fixture(scope="session")
def package_namespace() -> str:
    return PACKAGES


@pytest.fixture(scope="session")
def rendered_text(helm: Path) -> str:
    settings = [f"packageNamespaces={{{PACKAGES}}}"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    command = [str(helm), "template", "cloacina", str(CHART), "--namespace", "cloacina-system", *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def rendered(rendered_text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(rendered_text) if document]


@pytest.fixture(scope="session")
def installed(admin: Kubectl, rendered: list[dict[str, Any]]) -> Kubectl:
    """An API server that has what the chart makes; gives its administrator."""
    for namespace in ("cloacina-system", PACKAGES):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        metadata = {"name": namespace, "labels": labels}
        admin("apply", "-f", "-", document={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    admin("apply", "-f", "-", document={"apiVersion": "v1", "kind": "List", "items": rendered})
    admin("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    return admin


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane) -> Kubectl:
    """Its administrator."""
    return Kubectl(program=control_plane.kubectl_program, kubeconfig=control_plane.kubeconfig)


@pytest.fixture(scope="session")
def scene(installed: Kubectl, package_namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    admin, namespace = installed, package_namespace
    for name in ("alpha", "alpha-b"):
        admin.create(package(name, namespace))
        admin.create(trigger(f"{name}-inbox", name, namespace))
        admin.create(run(f"{name}-1", name, namespace))
    admin("create", "secret", "generic", "password", "-n", namespace, "--from-literal=word=hidden")
    admin("create", "serviceaccount", "own-of-both", "-n", namespace)
    admin("create", "serviceaccount", "applier", "-n", "default")
    for role, account in (
        ("poller", f"{namespace}:own-of-both"),
        ("run", f"{namespace}:own-of-both"),
        ("poller", "default:applier"),
    ):
        binding = f"{account.replace(':', '-')}-{role}"
        roles = (f"--clusterrole=cloacina-{role}", f"--serviceaccount={account}")
        admin("create", "rolebinding", binding, "-n", namespace, *roles)
    anonymous = admin.anonymous(tmp_path_factory.mktemp("kubeconfig"))
    return Scene(admin=admin, anonymous=anonymous, namespace=namespace)
