"""What is made of a package and its runs on a cluster."""

import base64
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cloacina_operator.core.inspections import inspection_job
from cloacina_operator.core.manifests import (
    BACKSTOP,
    PodSettings,
    poller_deployment,
    run_job,
)
from hypothesis import given
from hypothesis import strategies as st

from cloaca.packages.archive import Limits
from cloaca.resources import CloacinaPackage, ObjectMeta, RunSpec, WorkflowRun
from cloaca.resources.names import inspection_name, poller_name
from cloaca.resources.package import ConfigMapSource, PackageSource, PackageSpec, SecretReference
from cloaca.resources.run import RunStatus
from cloaca.store.kubernetes.archives import PART_BYTES, digest_of, package_parts, part_count

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
DIGEST = "sha256:" + "a" * 64
SETTINGS = PodSettings(image="registry.example.com/cloacina:0.1.0")


def package(**spec: Any) -> CloacinaPackage:
    source = PackageSource(url="https://packages.example.com/p.cloacina")
    return CloacinaPackage(
        metadata=ObjectMeta(name="data-ingest", namespace="team", uid="u-package", generation=3),
        spec=PackageSpec(source=source, **spec),
    )


def run(started: datetime | None = None, **spec: Any) -> WorkflowRun:
    return WorkflowRun(
        metadata=ObjectMeta(name="data-ingest-inbox-7", namespace="team", uid="u-run"),
        spec=RunSpec(workflow="data_ingest", **spec),
        status=RunStatus(started_at=started),
    )


def the_run_job(pkg: CloacinaPackage, of: WorkflowRun | None = None) -> dict[str, Any]:
    return run_job(of or run(), pkg, DIGEST, 2, 1, SETTINGS, NOW)


def main_container(manifest: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in manifest["spec"]["template"]["spec"]["containers"] if c["name"] == "main")


ALL = [
    pytest.param(lambda p: poller_deployment(p, DIGEST, 1, SETTINGS), True, id="poller"),
    pytest.param(the_run_job, True, id="run"),
    pytest.param(lambda p: inspection_job(p, (), None, SETTINGS, Limits()), False, id="inspection"),
]


@pytest.mark.parametrize(("make", "token"), ALL)
def test_every_pod_keeps_the_restricted_standard(make: Any, token: bool) -> None:
    pod = make(package())["spec"]["template"]["spec"]
    main = pod["containers"][0]

    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is token
    assert {v["name"]: next(k for k in v if k != "name") for v in pod["volumes"]} == (
        {"cloacina-tmp": "emptyDir", "cloacina-archive": "projected"}
        if token
        else {"cloacina-tmp": "emptyDir", "cloacina-archive": "emptyDir", "cloacina-token": "projected"}
    )
    for first in pod.get("initContainers", ()):
        assert first["securityContext"] == main["securityContext"]


@pytest.mark.parametrize(("make", "token"), ALL)
def test_a_pod_template_adds_and_cannot_take_away_what_we_need(make: Any, token: bool) -> None:
    template = {
        "metadata": {"labels": {"team": "data", "cloacina.io/component": "other"}},
        "spec": {
            "restartPolicy": "OnFailure",
            "automountServiceAccountToken": not token,
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "containers": [
                {
                    "name": "main",
                    "command": ["sh"],
                    "args": ["-c", "true"],
                    "env": [{"name": "INBOX_PATH", "value": "/data/inbox"}],
                    "resources": {"limits": {"memory": "1Gi"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "inbox"}}],
        },
    }
    plain, changed = make(package()), make(package(image="team/image:1", pod_template=template))
    pod, main = changed["spec"]["template"]["spec"], main_container(changed)

    assert main["image"] == "team/image:1"
    assert (main["command"], main["args"]) == (main_container(plain)["command"], main_container(plain)["args"])
    assert {entry["name"] for entry in main["env"]} == {"HOME", "INBOX_PATH", "CLOACA_POD", "PYTHONSAFEPATH"}
    assert main["resources"] == {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "1Gi"}}
    assert [m["mountPath"] for m in main["volumeMounts"]] == ["/tmp", "/data", "/cloacina/archive"]
    assert [v["name"] for v in pod["volumes"]] == ["cloacina-tmp", "data", "cloacina-archive"] + (
        [] if token else ["cloacina-token"]
    )
    assert pod["restartPolicy"] == plain["spec"]["template"]["spec"]["restartPolicy"]
    assert pod["automountServiceAccountToken"] is token
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"disk": "ssd"}, [{"key": "gpu", "operator": "Exists"}])
    labels = changed["spec"]["template"]["metadata"]["labels"]
    assert labels == {**plain["spec"]["template"]["metadata"]["labels"], "team": "data"}


def test_a_poller_is_replaced_and_never_doubled() -> None:
    made = poller_deployment(package(), DIGEST, 1, SETTINGS)

    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("data-ingest-poller", "team")
    assert (made["spec"]["replicas"], made["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert made["spec"]["selector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    assert made["spec"]["template"]["spec"]["serviceAccountName"] == "cloacina-poller"


def test_a_poller_reads_from_memory_and_keeps_the_limits_of_the_operator() -> None:
    settings = PodSettings(image="i:1", worker_memory=1_000_000, jitter=0.5, poller_port=0)

    made = poller_deployment(package(), DIGEST, 1, settings)

    assert main_container(made)["args"] == [
        *("cloaca.processes.poll", "--package", "data-ingest", "--worker-memory", "1000000", "--jitter", "0.5"),
        *("--namespace", "team", "--store", "kubernetes:?namespace=team&cached=true&package=data-ingest"),
        *("--archive", "/cloacina/archive", "--digest", DIGEST),
    ]


def test_a_poller_tells_prometheus_on_a_port_of_its_pod_and_nothing_else_does() -> None:
    settings = PodSettings(image="i:1", poller_port=7000)
    container = {"name": "main", "ports": [{"containerPort": 7000, "name": "mine"}, {"containerPort": 7001}]}
    template = {"spec": {"containers": [container]}}

    poller, other = (
        main_container(poller_deployment(package(pod_template=template), DIGEST, 1, settings)),
        main_container(run_job(run(), package(), DIGEST, 2, 1, settings, NOW)),
    )

    assert poller["args"][7:9] == ["--metrics-port", "7000"]
    assert poller["ports"] == [{"containerPort": 7000, "name": "poller-metrics"}, {"containerPort": 7001}]
    assert "ports" not in other
    assert "--metrics-port" not in other["args"]


@pytest.mark.parametrize(
    ("port", "template"),
    [
        pytest.param(0, None, id="no port"),
        pytest.param(7000, {"spec": {"hostNetwork": True}}, id="the node's own network"),
    ],
)
def test_a_poller_that_is_not_to_be_measured_listens_nowhere(port: int, template: dict[str, Any] | None) -> None:
    settings = PodSettings(image="i:1", poller_port=port)

    main = main_container(poller_deployment(package(pod_template=template), DIGEST, 1, settings))

    assert "ports" not in main
    assert "--metrics-port" not in main["args"]


def test_a_run_is_tried_once_a_job_and_goes_with_its_run() -> None:
    made = the_run_job(package(), run())

    assert made["metadata"]["name"] == "data-ingest-inbox-7"
    assert made["metadata"]["ownerReferences"][0] | {"controller": True} == {
        "apiVersion": "cloacina.io/v1alpha1",
        "kind": "WorkflowRun",
        "name": "data-ingest-inbox-7",
        "uid": "u-run",
        "controller": True,
        "blockOwnerDeletion": False,
    }
    assert made["metadata"]["annotations"] == {"cloacina.io/digest": DIGEST, "cloacina.io/attempt": "2"}
    assert made["spec"]["backoffLimit"] == 0
    assert main_container(made)["args"] == [
        "cloaca.processes.attempt",
        *("--run", "data-ingest-inbox-7", "--uid", "u-run", "--attempt", "2"),
        *("--namespace", "team", "--store", "kubernetes:?namespace=team"),
        *("--archive", "/cloacina/archive", "--digest", DIGEST),
    ]


@pytest.mark.parametrize(
    ("spec", "started", "expected"),
    [
        pytest.param({}, None, None, id="no deadline"),
        pytest.param({"active_deadline_seconds": 100}, None, 100 + BACKSTOP, id="first attempt"),
        pytest.param(
            {"active_deadline_seconds": 100}, NOW - timedelta(seconds=70), 30 + BACKSTOP, id="what is left of it"
        ),
        pytest.param({"active_deadline_seconds": 100}, NOW - timedelta(hours=1), 1 + BACKSTOP, id="nothing is left"),
    ],
)
def test_the_kubelet_ends_a_run_that_outlives_its_deadline(
    spec: dict[str, Any], started: datetime | None, expected: int | None
) -> None:
    made = the_run_job(package(), run(started, **spec))

    assert made["spec"]["template"]["spec"].get("activeDeadlineSeconds") == expected


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7])
def test_an_archive_is_cut_into_parts_that_pods_put_together(size: int) -> None:
    data = bytes(index % 251 for index in range(size))

    parts = package_parts("data-ingest", "u-package", "team", data)

    assert b"".join(base64.b64decode(part["binaryData"]["part"]) for part in parts) == data
    assert len(parts) == part_count(size)
    assert all(part["immutable"] for part in parts)
    sources = poller_deployment(package(), digest_of(data), len(parts), SETTINGS)["spec"]["template"]["spec"][
        "volumes"
    ][-1]
    mounted = [source["configMap"]["name"] for source in sources["projected"]["sources"]]
    assert mounted == [part["metadata"]["name"] for part in parts]


NAMES = st.from_regex(re.compile(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", re.ASCII), fullmatch=True)


@given(NAMES.filter(lambda name: len(name) <= 39), st.text(max_size=80))
def test_names_are_valid_whatever_the_package_is_called(name: str, digest: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", inspection_name(name, digest))
    assert len(inspection_name(name, digest)) <= 57  # its pod adds 6


@given(NAMES.filter(lambda name: len(name) <= 39), NAMES.filter(lambda name: len(name) <= 39))
def test_a_poller_pods_name_is_read_back_as_its_packages_and_no_others(one: str, other: str) -> None:
    pod = f"{poller_name(one)}-{'x' * 10}-abcde"

    assert len(pod) <= 63
    assert bool(re.fullmatch(f"{other}-poller-[a-z0-9]{{1,10}}-[a-z0-9]{{5}}", pod)) is (one == other)


def test_settings_of_the_operator_reach_the_pods() -> None:
    settings = PodSettings(
        image="i:1", image_pull_secrets=("registry",), image_pull_policy="Always", run_service_account="runs"
    )

    pod = run_job(run(), package(), DIGEST, 1, 1, settings, NOW)["spec"]["template"]["spec"]

    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert (pod["containers"][0]["image"], pod["containers"][0]["imagePullPolicy"]) == ("i:1", "Always")
    assert pod["serviceAccountName"] == "runs"


TEMPLATES: dict[str, Any] = {
    "an account": {"spec": {"serviceAccountName": "cloacina-operator", "serviceAccount": "cloacina-operator"}},
    "a token of its own": {
        "spec": {
            "volumes": [{"name": "mine", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "containers": [{"name": "main", "volumeMounts": [{"name": "mine", "mountPath": "/mine"}]}],
        }
    },
    "the token of the fetch": {
        "spec": {
            "containers": [
                {"name": "main", "volumeMounts": [{"name": "cloacina-token", "mountPath": "/mine"}]},
                {"name": "side", "image": "i", "volumeMounts": [{"name": "cloacina-token", "mountPath": "/mine"}]},
            ],
            "initContainers": [
                {"name": "early", "image": "i", "volumeMounts": [{"name": "cloacina-token", "mountPath": "/mine"}]}
            ],
        }
    },
    "the credentials of the source": {
        "spec": {
            "containers": [{"name": "main", "volumeMounts": [{"name": "cloacina-source-secret", "mountPath": "/s"}]}]
        }
    },
    "another fetch": {
        "spec": {"initContainers": [{"name": "fetch", "image": "mine", "command": ["sh"], "args": ["-c", "env"]}]}
    },
    "other volumes of these names": {
        "spec": {"volumes": [{"name": name, "emptyDir": {}} for name in ("cloacina-token", "cloacina-source-secret")]}
    },
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_only_the_fetch_of_an_inspection_has_a_token_and_credentials(template: Any) -> None:
    asked = package(pod_template=template, secret_ref=SecretReference(name="registry"))

    pod = inspection_job(asked, (), None, SETTINGS, Limits())["spec"]["template"]["spec"]

    fetch, *others = [*pod["initContainers"], *pod["containers"]]
    private = {v["name"] for v in pod["volumes"] if "serviceAccountToken" in str(v) or "registry" in str(v)}
    assert private == {"cloacina-token", "cloacina-source-secret"}
    assert private <= {mount["name"] for mount in fetch["volumeMounts"]}
    assert fetch["args"][0] == "cloaca.processes.fetch"
    assert (fetch["command"], fetch["image"]) == (["python", "-m"], SETTINGS.image)
    assert not private & {mount["name"] for other in others for mount in other["volumeMounts"]}
    assert (pod["serviceAccountName"], pod.get("serviceAccount")) == ("cloacina-inspection", None)
    assert pod["automountServiceAccountToken"] is False


def test_a_source_in_config_maps_is_a_volume_whose_parts_may_be_missing() -> None:
    asked = package()
    asked = asked.with_spec(source=PackageSource(config_map=ConfigMapSource(name="demo")))

    pod = inspection_job(asked, (DIGEST,), None, SETTINGS, Limits(packed_bytes=2 * PART_BYTES))["spec"]["template"][
        "spec"
    ]

    (volume,) = [v for v in pod["volumes"] if v["name"] == "cloacina-source"]
    sources = [source["configMap"] for source in volume["projected"]["sources"]]
    assert [source["name"] for source in sources] == ["demo", "demo-1", "demo-2"]
    assert all(source["optional"] for source in sources)
    arguments = pod["initContainers"][0]["args"]
    assert f"--known={DIGEST}" in arguments
    assert "--url" not in " ".join(arguments)


def test_what_a_template_says_of_the_container_that_fetches_is_for_inspections_only() -> None:
    """Kubernetes refuses an init container without an image: no run of such a package could start."""
    template = {"spec": {"initContainers": [{"name": "fetch", "env": [{"name": "A", "value": "b"}]}, {"name": "mine"}]}}
    of = package(pod_template=template)
    pods = [poller_deployment(of, DIGEST, 1, SETTINGS)["spec"]["template"]["spec"]]
    assert [[one["name"] for one in pod["initContainers"]] for pod in pods] == [["mine"]]
