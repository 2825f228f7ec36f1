"""One real node with the chart on it for all tests of the story, or the cluster of ``$KUBECONFIG``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import binaries
from cluster.chart.helm_binary import HelmMissing, built_helm
from cluster.control_plane import given_cluster
from cluster.node import images
from cluster.node.node import real_node
from cluster.story import orders
from cluster.story.scene import Scene
from cluster.story.stage import DATA, staged


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
            yield staged(Scene(plane=plane, node=None, image=image, helm_program=helm))
            return
        with real_node(folder) as node:
            yield staged(Scene(plane=node.plane, node=node, image=images.TAG, helm_program=helm))
    except (HelmMissing, binaries.Unavailable) as error:
        pytest.skip(str(error))


@pytest.fixture
def story(scene: Scene) -> Iterator[Scene]:
    """The scene without any package, and with empty data."""
    scene.shell("rm -rf inbox hold effects && mkdir inbox hold && chmod 777 inbox hold")
    yield scene
    scene.clear()


@pytest.fixture
def orders_package(story: Scene) -> Scene:
    """Version 1.0.0 of the package of the story is polled."""
    story.deploy("orders", orders.packed(), "1.0.0", podTemplate={"spec": DATA})
    story.await_version("orders", "1.0.0")
    return story
