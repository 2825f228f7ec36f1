"""Trouble of real pods is told on the object that a person applied."""

from __future__ import annotations

from typing import Any

import pytest
from cluster.story import orders
from cluster.story.scene import NAMESPACE, Scene
from cluster.story.stage import DATA
from groups import NODE

pytestmark = NODE


def ready(story: Scene, package: str) -> dict[str, Any]:
    found: dict[str, Any] = story.conditions(f"cpkg/{package}").get("Ready", {})
    return found


def with_main(**container: Any) -> dict[str, Any]:
    main = {**DATA["containers"][0], **container}
    return {"spec": {**DATA, "containers": [main]}}


TROUBLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "image": (
        {"image": "registry.invalid/never:1", "podTemplate": {"spec": DATA}},
        "ImagePullBackOff",
        "the image 'registry.invalid/never:1' cannot be pulled",
    ),
    "node": (
        {"podTemplate": {"spec": {**DATA, "nodeSelector": {"cloacina.io/nowhere": ""}}}},
        "Unschedulable",
        "no node takes pod",
    ),
    "quota": (
        {"podTemplate": with_main(resources={"requests": {"cpu": "1m"}, "limits": {"example.com/thing": 1}})},
        "QuotaExceeded",
        "exceeded quota: things",
    ),
    "security": (
        {"podTemplate": {"spec": {**DATA, "hostNetwork": True}}},
        "PodForbidden",
        "hostNetwork",
    ),
    "secret": (
        {"podTemplate": with_main(envFrom=[{"secretRef": {"name": "never"}}])},
        "ContainerConfigError",
        'secret "never" not found',
    ),
}


def test_what_keeps_pods_from_starting_is_said_on_the_package_and_put_right_there(story: Scene) -> None:
    quota = {"hard": {"requests.example.com/thing": 0}}
    metadata = {"name": "things", "namespace": NAMESPACE}
    story.plane.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": quota})
    try:
        for name, (spec, _, _) in TROUBLE.items():
            story.deploy(name, orders.packed(), "1.0.0", **spec)
        for name, (_, reason, said) in TROUBLE.items():
            story.until(f"{reason} on {name}", lambda: ready(story, name).get("reason") == reason)  # noqa: B023  # called at once
            assert said in ready(story, name)["message"], name
        story.kubectl("patch", "cpkg/image", "--type=merge", "--patch", '{"spec": {"image": null}}')
        story.await_version("image", "1.0.0")  # what was put right is looked at, though the old inspection never ended
    finally:
        story.kubectl("delete", "resourcequota", "things")


@pytest.mark.long
def test_a_run_that_passes_its_memory_limit_says_so(story: Scene) -> None:
    template = with_main(resources={"requests": {"memory": "64Mi"}, "limits": {"memory": "256Mi"}})
    story.deploy("orders", orders.packed(), "1.0.0", podTemplate=template, runs={"backoffLimit": 0})
    story.await_version("orders", "1.0.0")
    story.bring("hungry")

    run = story.await_run(story.run_of("hungry"), "Failed")

    assert "passed its memory limit of 256Mi" in run["status"]["message"]
