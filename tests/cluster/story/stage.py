"""Set the scene: install the chart on a cluster, give the namespace of packages a volume and a pod with a shell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.story.scene import CHART, NAMESPACE, RESTRICTED, SYSTEM, Scene

DATA = {
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "containers": [{"name": "main", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
}


def staged(scene: Scene) -> Scene:
    """The scene with the chart installed, an operator that leads, and a volume for data. Raises RuntimeError."""
    if scene.node is not None:
        _volume(scene.node.folder, scene)
    repository, _, tag = scene.image.rpartition(":")
    for name in (NAMESPACE, SYSTEM):
        scene.plane.namespace(name, RESTRICTED)
    scene.plane.apply(_claim(scene), _desk(scene))
    values = {"image.repository": repository, "image.tag": tag, "packageNamespaces": f"{{{NAMESPACE}}}"}
    values["metrics.pollers.allowScrapes"] = "true"
    flags = [f"--set={name}={value}" for name, value in values.items()]
    scene.helm("upgrade", "--install", "cloacina", str(CHART), f"--namespace={SYSTEM}", *flags)
    try:
        scene.plane.kubectl("rollout", "status", "-n", SYSTEM, "deployment/cloacina-operator", "--timeout=100s")
    except RuntimeError as error:
        raise RuntimeError(f"the operator does not come up: {error}\n{scene.told()}") from error
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
