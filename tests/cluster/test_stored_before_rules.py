"""Objects that were stored before the API server had the rules that refuse them: read, refused by the plan, updated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from cluster.control_plane import CRDS, ControlPlane
from cluster.operated import Cluster

RULES = "x-kubernetes-validations"


def thing(kind: str, name: str, /, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "cloacina.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def package(name: str, url: str, /, **spec: Any) -> dict[str, Any]:
    return thing("CloacinaPackage", name, source={"url": url}, **spec)


STORED = [
    package("signed", "https://127.0.0.1:1/a.cloacina", verify={"publicKeys": ["-----BEGIN PUBLIC KEY-----"]}),
    *(package(f"of-{scheme}", f"{scheme}://bucket/a.cloacina") for scheme in ("s3", "gs", "az", "oci")),
    thing("Trigger", "signed-poller", packageRef={"name": "signed"}, name="poller"),
    thing("WorkflowRun", "signed-poller-abc", packageRef={"name": "signed"}, workflow="demo"),
]
# Kind and name, condition, its status and reason, and what its message says.
SAID = [
    ("cpkg", "signed", "Verified", "False", "SignaturesUnsupported", "remove spec.verify"),
    ("cpkg", "signed", "Stalled", "True", "SignaturesUnsupported", "remove spec.verify"),
    *(("cpkg", f"of-{of}", "Stalled", "True", "SourceUnsupported", f"{of}://") for of in ("s3", "gs", "az", "oci")),
    ("ctrig", "signed-poller", "Ready", "False", "PackageNotReady", ""),
    ("crun", "signed-poller-abc", "Ready", "False", "WaitingForPackage", ""),
]


@contextmanager
def no_rules(plane: ControlPlane) -> Iterator[None]:
    """Our kinds without what their schemas say in CEL, as an older version had them."""
    try:
        for path in sorted(CRDS.glob("*.yaml")):
            plane.kubectl("apply", "--server-side", "-f", "-", document=without_rules(yaml.safe_load(path.read_text())))
        yield
    finally:
        plane.install_crds()


def without_rules(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: without_rules(value) for key, value in node.items() if key != RULES}
    return [without_rules(entry) for entry in node] if isinstance(node, list) else node


async def until(cluster: Cluster, what: str, attempt: Callable[[], object], *, refused: bool = False) -> None:
    """Try again until it works, or is refused: new schemas are served a moment after they were accepted."""

    async def look() -> bool:
        try:
            await asyncio.to_thread(attempt)
        except RuntimeError:
            return refused
        return not refused

    await cluster.eventually(what, look)


async def test_stored_objects_that_a_rule_would_refuse_are_told_what_is_wrong(cluster: Cluster) -> None:
    plane, namespace = cluster.plane, cluster.namespace
    if not plane.processes:
        pytest.skip("changes the CRDs, which are not ours on a cluster that is given")

    def create(document: dict[str, Any]) -> None:
        plane.kubectl("apply", "-n", namespace, "-f", "-", document=document)

    with no_rules(plane):
        for document in STORED:
            await until(cluster, f"{document['metadata']['name']} to be stored", lambda given=document: create(given))  # type: ignore[misc]
    probe = package("probe", "s3://bucket/a.cloacina")
    await until(
        cluster,
        "the rules to hold again",
        lambda: plane.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", document=probe),
        refused=True,
    )
    cluster.start("operator")
    for kind, name, condition, status, reason, message in SAID:

        async def look(
            kind: str = kind, name: str = name, condition: str = condition, wanted: tuple[str, str] = (status, reason)
        ) -> str | None:
            words = ("get", kind, name, "-n", namespace, "-o", "yaml")
            read = yaml.safe_load(await asyncio.to_thread(plane.kubectl, *words))
            for one in read.get("status", {}).get("conditions", []):
                if one["type"] == condition and (one["status"], one["reason"]) == wanted:
                    return str(one["message"]) or "-"
            return None

        assert message in await cluster.eventually(f"{name} to say {condition}={status} {reason}", look)
