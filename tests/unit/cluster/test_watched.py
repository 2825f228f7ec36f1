"""Of thousands of pods, Jobs and Deployments no more is kept than somebody reads."""

from __future__ import annotations

from typing import Any

from cloacina_operator.executors.watched import slim
from cloacina_operator.hosts.kopf_app import quiet_settings

METADATA = {"name": "demo-poller", "namespace": "team", "labels": {"cloacina.io/package": "demo"}}
MANAGED = {"managedFields": [{"manager": "kubelet"}]}


def test_of_a_pod_is_kept_what_tells_its_trouble() -> None:
    main = {"name": "main", "resources": {"limits": {"memory": "64Mi"}}}
    condition = {"type": "Ready", "status": "True"}
    state = {"name": "main", "image": "team/image:1", "restartCount": 0, "state": {"running": {}}, "lastState": {}}
    pod = {
        "metadata": {**METADATA, **MANAGED},
        "spec": {
            "containers": [{**main, "env": [{"name": "HOME", "value": "/tmp"}], "volumeMounts": [{"name": "data"}]}],
            "initContainers": [{"name": "first"}],
            "volumes": [{"name": "data"}],
            "nodeName": "one",
        },
        "status": {
            "phase": "Running",
            "conditions": [condition],
            "containerStatuses": [{**state, "imageID": "sha256:0123", "started": True}],
            "podIPs": [{"ip": "10.0.0.7"}],
        },
    }
    assert slim(pod) == {
        "metadata": METADATA,
        "spec": {"containers": [main], "initContainers": [{"name": "first"}]},
        "status": {"phase": "Running", "conditions": [condition], "containerStatuses": [state]},
    }


def test_a_deployment_is_kept_without_what_we_made_it_after() -> None:
    status = {"observedGeneration": 1, "availableReplicas": 1}
    spec: dict[str, Any] = {"replicas": 1, "template": {"spec": {"containers": [{"name": "main"}]}}}
    made = {"metadata": {**METADATA, **MANAGED}, "spec": spec, "status": status}
    assert slim(made) == {"metadata": METADATA, "status": status}


def test_what_is_neither_is_kept_whole() -> None:
    lease = {"metadata": METADATA, "spec": {"holderIdentity": "one"}}
    assert slim({"metadata": {**METADATA, **MANAGED}, "spec": {"holderIdentity": "one"}}) == lease


def test_kopf_gets_through_thousands_of_packages_in_seconds() -> None:
    """Those that it has not got to it holds in memory, whole."""
    queueing = quiet_settings().queueing
    assert queueing.worker_limit is not None
    assert queueing.worker_limit / queueing.idle_timeout >= 500
