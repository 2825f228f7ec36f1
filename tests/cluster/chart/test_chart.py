"""The chart as Helm and an API server see it: linted, validated, each switch, and the file that is made from it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloacina_operator.core.manifests import PodSettings, poller_deployment
from cluster.kubectl import Kubectl

from cloaca.resources import CloacinaPackage, ObjectMeta
from cloaca.resources.package import PackageSource, PackageSpec

ROOT = Path(__file__).parents[3]
CHART = ROOT / "manifests" / "chart"
Render = Callable[..., list[dict[str, Any]]]

EVERYTHING = {
    "image": {"repository": "registry.invalid/cloacina", "tag": "1.2.3", "pullSecrets": [{"name": "a"}, {"name": "b"}]},
    "packageNamespaces": ["default", "kube-public"],
    "clusterWide": True,
    "admissionPolicies": {"exempt": ["default:deployer"]},
    "operator": {
        "replicas": 2,
        "logLevel": "debug",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "special", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"example.com/c": "d"},
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
    },
    "metrics": {
        "service": {"enabled": True},
        "pollers": {"port": 7000, "allowScrapes": True, "from": [{"namespaceSelector": {}}]},
    },
}


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    def render(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        values = {"packageNamespaces": ["default"], **(values or {})}
        command = [str(helm), "template", "cloacina", str(CHART), "--namespace", "cloacina-system", "--values", "-"]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(done.stderr)
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return render


def only(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def test_helm_lint(helm: Path) -> None:
    command = [str(helm), "lint", "--strict", str(CHART), "--set", "packageNamespaces={a}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "values", [{}, {"clusterWide": True}, EVERYTHING], ids=["defaults", "cluster-wide", "everything"]
)
def test_strict_server_side_dry_run(installed: Kubectl, render: Render, values: dict[str, Any]) -> None:
    documents = render(values)
    listed = {"apiVersion": "v1", "kind": "List", "items": documents}
    said = installed("apply", "--dry-run=server", "--validate=strict", "-f", "-", document=listed)
    assert len(said.splitlines()) == len(documents)


def test_the_operator_is_restricted(render: Render) -> None:
    """What the API server checks against `restricted` are pods, so the check of a Deployment is ours."""
    pod = only(render(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_where_packages_live_must_be_said(render: Render) -> None:
    with pytest.raises(ValueError, match="packageNamespaces is empty: name the namespaces in which packages may live"):
        render({"packageNamespaces": []})


def test_without_cluster_wide_the_operator_is_bound_in_the_named_namespaces_only(render: Render) -> None:
    documents = render({"packageNamespaces": ["a", "b"]})
    assert not [document for document in documents if document["kind"] == "ClusterRoleBinding"]
    bound = {d["metadata"]["namespace"] for d in documents if d["kind"] == "RoleBinding"}
    assert bound == {"a", "b", "cloacina-system"}
    (container,) = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"name": "CLOACINA_NAMESPACES", "value": "a,b"} in container["env"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (
            {"packageNamespaces": ["a"]},
            {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a"]}]},
        ),
        ({"packageNamespaces": ["a"], "clusterWide": True}, None),
    ],
    ids=["named", "cluster-wide"],
)
def test_the_policies_hold_where_the_operator_works(render: Render, values: dict[str, Any], wanted: Any) -> None:
    """The operator of another release is exempt in its own namespaces only."""
    bindings = [d for d in render(values) if d["kind"] == "ValidatingAdmissionPolicyBinding"]
    (about_operator,) = (d for d in bindings if d["metadata"]["name"].endswith("-operator-writes"))
    assert "matchResources" not in about_operator["spec"], "it holds everywhere, for this release's operator alone"
    bindings.remove(about_operator)
    assert len(bindings) == 4
    for binding in bindings:
        assert binding["spec"].get("matchResources", {}).get("namespaceSelector") == wanted


def test_the_service_monitor_selects_the_service(render: Render) -> None:
    documents = render({"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}})
    monitor, service = only(documents, "ServiceMonitor"), only(documents, "Service")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert not [document for document in render() if document["kind"] in ("Service", "ServiceMonitor")]


def poller() -> dict[str, Any]:
    """As the operator makes it."""
    source = PackageSource(url="https://packages.example.com/p.cloacina")
    package = CloacinaPackage(metadata=ObjectMeta(name="demo", namespace="a", uid="u"), spec=PackageSpec(source=source))
    return poller_deployment(package, "sha256:1", 1, PodSettings(image="i:1"))


@pytest.mark.parametrize(
    ("values", "where"),
    [({}, {"matchNames": ["a", "b"]}), ({"clusterWide": True}, {"any": True})],
    ids=["named", "cluster-wide"],
)
def test_the_pod_monitor_selects_pollers(render: Render, values: dict[str, Any], where: dict[str, Any]) -> None:
    switched = {"pollers": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}}
    monitor = only(render({"packageNamespaces": ["a", "b"], "metrics": switched, **values}), "PodMonitor")
    pod = poller()["spec"]["template"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"] == where
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "poller-metrics", "path": "/metrics", "interval": "30s", "honorLabels": True}
    assert endpoint["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    assert not [document for document in render() if document["kind"] == "PodMonitor"]


def test_a_pod_monitor_of_no_port_is_refused(render: Render) -> None:
    with pytest.raises(ValueError, match=r"metrics\.pollers\.port is 0"):
        render({"metrics": {"pollers": {"port": 0, "podMonitor": {"enabled": True}}}})


def ingress(documents: list[dict[str, Any]], pod: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
    """What the policies of a namespace let in to a pod of those labels. Policies add up."""
    rules: list[dict[str, Any]] = []
    for policy in documents:
        if policy["kind"] != "NetworkPolicy" or policy["metadata"]["namespace"] != namespace:
            continue
        selector = policy["spec"]["podSelector"]
        wanted = [(key, [value]) for key, value in selector.get("matchLabels", {}).items()]
        wanted += [(one["key"], one["values"]) for one in selector.get("matchExpressions", [])]
        if all(pod.get(key) in values for key, values in wanted):
            rules += policy["spec"].get("ingress", [])
    return rules


@pytest.mark.parametrize(
    ("pollers", "let_in"),
    [
        pytest.param({}, [], id="default"),
        pytest.param({"podMonitor": {"enabled": True}}, [{"ports": [{"port": 7469}]}], id="monitored"),
        pytest.param({"allowScrapes": True, "port": 0}, [], id="no port"),
        pytest.param(
            {"allowScrapes": True, "port": 7000, "from": [{"podSelector": {}}]},
            [{"ports": [{"port": 7000}], "from": [{"podSelector": {}}]}],
            id="from",
        ),
    ],
)
def test_the_policies_let_scrapes_in_to_pollers_and_nothing_else(
    render: Render, pollers: dict[str, Any], let_in: list[dict[str, Any]]
) -> None:
    documents = render({"packageNamespaces": ["a", "b"], "metrics": {"pollers": pollers}})
    labels = poller()["spec"]["template"]["metadata"]["labels"]
    assert [ingress(documents, labels, namespace) for namespace in ("a", "b", "c")] == [let_in, let_in, []]
    for component in ("run", "inspection"):
        assert ingress(documents, {**labels, "cloacina.io/component": component}, "a") == []


def test_crds_stay_when_the_release_goes(render: Render) -> None:
    crds = [document for document in render() if document["kind"] == "CustomResourceDefinition"]
    assert len(crds) == len(list((ROOT / "crds").glob("*.yaml")))
    assert {crd["metadata"]["annotations"]["helm.sh/resource-policy"] for crd in crds} == {"keep"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image": {"tag": "latest"}}, "tag"),
        ({"operator": {"replica": 2}}, "replica"),
        ({"clusterWide": "yes"}, "clusterWide"),
        ({"networkPolicies": {"sourcePorts": [0]}}, "sourcePorts"),
        ({"packageNamespaces": ["Team A"]}, "packageNamespaces"),
        ({"metrics": {"pollers": {"port": 80}}}, "port"),
    ],
    ids=["latest", "misspelt", "type", "no-names", "bad-namespace", "bad-port"],
)
def test_values_that_cannot_be_meant_are_refused(render: Render, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        render(values)


def test_install_yaml_is_current(helm: Path) -> None:
    """`make manifests` writes it."""
    command = [str(ROOT / "manifests" / "install.sh"), str(helm)]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "manifests" / "install.yaml").read_text() == made
