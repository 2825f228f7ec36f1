"""One real node with the chart on it for all tests of the story, or the cluster of ``$KUBECONFIG``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import binaries
from cluster.chart.helm_binary import HelmMissing, built_helm
from cluster.control_plane import given_cluster
from cluster.node import images
from cluster.node.node import real_node
from cluster.story import orders
from cluster.story.scene import CHART, NAMESPACE, RESTRICTED, SYSTEM, Scene

DATA = {
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "containers": [{"name": "main", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
}


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Helm has installed the chart; the operator leads. Skips where no node can be had."""
    folder = tmp_path_factory.mktemp("node")
    try:
        helm = built_helm()
        if "KUBECONFIG" in os.environ:
            kubectl = binaries.find("kubectl")["kubectl"]
            plane = given_cluster(Path(os.environ["KUBECONFIG"]), kubectl, folder)
            image = os.environ.get("CLOACINA_IMAGE")
            if image is None:
                pytest.skip("set $CLOACINA_IMAGE to an image of ours that the nodes of the cluster of $KUBECONFIG have")
            yield _set(Scene(plane=plane, node=None, image=image, helm_program=helm))
            return
        with real_node(folder) as node:
            _volume(node.folder, made := Scene(plane=node.plane, node=node, image=images.TAG, helm_program=helm))
            yield _set(made)
    except (HelmMissing, binaries.Unavailable) as error:
        pytest.skip(str(error))


@pytest.fixture
def story(scene: Scene) -> Iterator[Scene]:
    """The scene without any package, and with empty data."""
    scene.shell("rm -rf inbox hold effects && mkdir inbox hold && chmod 777 inbox hold")
    yield scene
    for package in scene.get("cpkg")["items"]:
        scene.delete(package["metadata"]["name"])


@pytest.fixture
def orders_package(story: Scene) -> Scene:
    """Version 1.0.0 of the package of the story is polled."""
    story.deploy("orders", orders.packed(), "1.0.0", podTemplate={"spec": DATA})
    story.await_version("orders", "1.0.0")
    return story


def _set(scene: Scene) -> Scene:
    repository, _, tag = scene.image.rpartition(":")
    for name in (NAMESPACE, SYSTEM):
        scene.plane.namespace(name, RESTRICTED)
    scene.plane.apply(_claim(scene), _desk(scene))
    values = {"image.repository": repository, "image.tag": tag, "packageNamespaces": f"{{{NAMESPACE}}}"}
    flags = [f"--set={name}={value}" for name, value in values.items()]
    scene.helm("upgrade", "--install", "cloacina", str(CHART), f"--namespace={SYSTEM}", *flags)
    try:
        scene.plane.kubectl("rollout", "status", "-n", SYSTEM, "deployment/cloacina-operator", "--timeout=100s")
    except RuntimeError as error:
        pytest.fail(f"the operator does not come up: {error}\n{scene.told()}")
    scene.wait("pod/desk", "condition=Ready")
    return scene


def _volume(folder: Path, scene: Scene) -> None:
    """On a node of ours nobody provides volumes: a folder of it is one."""
    place = folder / "data" / "volume"
    place.mkdir()
    place.chmod(0o777)
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": str(place)},
        "claimRef": {"name": "data", "namespace": NAMESPACE},
    }
    scene.plane.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "data"}, "spec": spec})


def _claim(scene: Scene) -> dict[str, Any]:
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    if scene.node is not None:
        spec |= {"storageClassName": "", "volumeName": "data"}
    metadata = {"name": "data", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def _desk(scene: Scene) -> dict[str, Any]:
    """A pod that does nothing but to have the data mounted, and a shell."""
    main = {
        "name": "main",
        "image": scene.image,
        "command": ["sleep", "infinity"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": DATA["containers"][0]["volumeMounts"],
    }
    spec = {
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [main],
        "volumes": DATA["volumes"],
    }
    metadata = {"name": "desk", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
