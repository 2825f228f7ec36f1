"""Where the operator may write, though a role reaches further: as with clusterWide, which reaches every namespace."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from cluster.kubectl import Kubectl, Refused

COUNTER = itertools.count()
REFUSED = "it is not in packageNamespaces, and does not have the label cloacina.io/packages=allowed"


@pytest.fixture(scope="module")
def operator(installed: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """With the rights that clusterWide gives it."""
    binding = ("--clusterrole=cloacina-operator", "--serviceaccount=cloacina-system:cloacina-operator")
    installed("create", "clusterrolebinding", "as-cluster-wide", *binding)
    installed("create", "namespace", "not-opened")
    installed("create", "namespace", "opened")
    installed("label", "namespace", "opened", "cloacina.io/packages=allowed")
    anonymous = installed.anonymous(tmp_path_factory.mktemp("operator"))
    return installed.pod_identity(anonymous, "cloacina-system", "cloacina-operator", "operator-of-bounds")


def thing(version: str, kind: str, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": f"bounds-{next(COUNTER)}"}, **rest}


def pod() -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "none.invalid/none:0",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": security, "containers": [container]}
    return {"metadata": {"labels": {"a": "b"}}, "spec": spec}


def deployment() -> dict[str, Any]:
    template = pod()
    template["spec"]["restartPolicy"] = "Always"
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    return thing("apps/v1", "Deployment", spec=spec)


MADE = {
    "a Deployment": deployment,
    "a Job": lambda: thing("batch/v1", "Job", spec={"suspend": True, "template": pod()}),
    "a run": lambda: thing("cloacina.io/v1alpha1", "WorkflowRun", spec={"workflow": "w", "packageRef": {"name": "p"}}),
    "a trigger": lambda: thing("cloacina.io/v1alpha1", "Trigger", spec={"name": "t", "packageRef": {"name": "p"}}),
}


@pytest.mark.parametrize("what", MADE)
@pytest.mark.parametrize("namespace", ["not-opened", "kube-system", "cloacina-system"])
def test_it_makes_nothing_where_nobody_opened_a_namespace_to_it(operator: Kubectl, what: str, namespace: str) -> None:
    with pytest.raises(Refused, match=REFUSED):
        operator("create", "-n", namespace, "-f", "-", document=MADE[what]())


@pytest.mark.parametrize("what", MADE)
def test_it_makes_them_in_a_namespace_with_the_label_and_in_those_that_are_named(
    operator: Kubectl, package_namespace: str, what: str
) -> None:
    for namespace in ("opened", package_namespace):
        operator("create", "-n", namespace, "-f", "-", document=MADE[what]())


def test_it_changes_and_deletes_nothing_elsewhere(operator: Kubectl, installed: Kubectl) -> None:
    settings = thing("v1", "ConfigMap", data={"a": "b"})
    run = MADE["a run"]()
    for document in (settings, run):
        installed("create", "-n", "not-opened", "-f", "-", document=document)
    name = run["metadata"]["name"]
    attempts = (
        ("delete", "configmap", settings["metadata"]["name"], "-n", "not-opened"),
        ("delete", "crun", name, "-n", "not-opened"),
        ("patch", "crun", name, "-n", "not-opened", "--type=merge", "-p", '{"spec": {"cancel": true}}'),
    )
    for attempt in attempts:
        with pytest.raises(Refused, match=REFUSED):
            operator(*attempt)
    with pytest.raises(Refused, match=REFUSED):
        operator.patch_status("crun", name, "not-opened", {"phase": "Completed"})


def test_the_policy_has_no_type_errors(installed: Kubectl) -> None:
    policy = installed.get("validatingadmissionpolicy", "cloacina-operator-writes")
    assert not policy.get("status", {}).get("typeChecking", {}).get("expressionWarnings")


def test_the_label_is_the_one_that_the_documents_name() -> None:
    text = (Path(__file__).parents[3] / "docs" / "explanation" / "security.md").read_text()
    assert "cloacina.io/packages=allowed" in text
