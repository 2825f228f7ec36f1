"""A release of the chart over its life: an upgrade brings new fields, and neither it nor the end touches what runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloacina_operator.core.manifests import PodSettings, run_job
from cluster.chart.conftest import CHART
from cluster.control_plane import CRDS, ControlPlane
from cluster.kubectl import Kubectl, Refused

from cloaca.resources import CloacinaPackage, WorkflowRun

DIGEST = "sha256:" + "0" * 64
NEW_FIELD = "warnings"  # that the older chart's kinds do not have


class Helm:
    """One release, in a namespace of its own."""

    def __init__(self, program: Path, plane: ControlPlane, namespace: str) -> None:
        self._program, self._plane, self.namespace = program, plane, namespace
        self.release = f"cloacina-{namespace}"

    def __call__(self, verb: str, *words: str) -> str:
        identity = ("--kubeconfig", str(self._plane.kubeconfig), "--namespace", self.namespace)
        command = [str(self._program), verb, self.release, *words, *identity]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def release(helm: Path, control_plane: ControlPlane, namespace: str) -> Iterator[Helm]:
    made = Helm(helm, control_plane, namespace)
    yield made
    left = control_plane.kubectl("get", "clusterrole", "-o", "name").split()
    for name in (one for one in left if made.release in one):  # what is meant to stay
        control_plane.kubectl("delete", name)
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))


def of_an_older_version(folder: Path) -> Path:
    """The chart before its package had a field."""
    chart = folder / "older"
    shutil.copytree(CHART, chart)
    path = chart / "files" / "crds" / "cloacina.io_cloacinapackages.yaml"
    crd = yaml.safe_load(path.read_text())
    del field(crd)[NEW_FIELD]
    path.write_text(yaml.safe_dump(crd))
    return chart


def field(crd: dict[str, Any]) -> dict[str, Any]:
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert isinstance(properties, dict)
    return properties


def a_run_under_way(admin: Kubectl, namespace: str) -> None:
    """A package, a run and its Job, as the operator makes them."""
    api = "cloacina.io/v1alpha1"
    metadata = {"name": "demo", "namespace": namespace}
    source = {"source": {"configMap": {"name": "a"}}}
    package = admin.create({"apiVersion": api, "kind": "CloacinaPackage", "metadata": metadata, "spec": source})
    spec = {"packageRef": {"name": "demo"}, "workflow": "demo", "digest": DIGEST}
    metadata = {"name": "demo-1", "namespace": namespace}
    run = admin.create({"apiVersion": api, "kind": "WorkflowRun", "metadata": metadata, "spec": spec})
    settings, now = PodSettings(image="cloacina:test"), datetime.now(timezone.utc)
    of, one = WorkflowRun.model_validate(run), CloacinaPackage.model_validate(package)
    admin.create(run_job(of, one, DIGEST, 1, 1, settings, now))


def what_runs(admin: Kubectl, namespace: str) -> dict[str, tuple[str, int | None]]:
    """Each object's uid and generation; one that is going has none."""
    found = admin.get("cpkg,crun,jobs", "-n", namespace)["items"]
    return {
        f"{one['kind']}/{one['metadata']['name']}": (
            one["metadata"]["uid"],
            None if "deletionTimestamp" in one["metadata"] else one["metadata"]["generation"],
        )
        for one in found
    }


def test_an_upgrade_brings_new_fields_and_the_end_leaves_what_runs(
    release: Helm, admin: Kubectl, namespace: str, tmp_path: Path
) -> None:
    crd = "cloacinapackages.cloacina.io"
    where = ["--set", f"packageNamespaces={{{namespace}}}"]
    release("install", str(of_an_older_version(tmp_path)), "--take-ownership", *where)
    assert NEW_FIELD not in field(admin.get("crd", crd))
    a_run_under_way(admin, namespace)
    before = what_runs(admin, namespace)
    assert len(before) == 3

    release("upgrade", str(CHART), "--set", "operator.replicas=2", *where)

    assert NEW_FIELD in field(admin.get("crd", crd))
    assert what_runs(admin, namespace) == before
    operator = f"{release.release}-operator"
    assert admin.get("deployment", operator, "-n", namespace)["spec"]["replicas"] == 2

    release("uninstall")

    assert what_runs(admin, namespace) == before
    assert admin.get("crd", crd)["status"]["conditions"]
    process = admin.pod_identity(admin.anonymous(tmp_path), namespace, "cloacina-run", "demo-1-x7k2p")
    process.patch_status("crun", "demo-1", namespace, {"phase": "Completed"})
    policy = f"{release.release}-run-status"
    for gone in (("deployment", operator, "-n", namespace), ("validatingadmissionpolicy", policy)):
        with pytest.raises(Refused, match="NotFound"):
            admin.get(*gone)

    release("install", str(CHART), *where)  # again, over what it left
    assert what_runs(admin, namespace) == before
    release("uninstall")
