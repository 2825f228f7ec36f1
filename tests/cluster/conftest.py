"""What tests on a cluster share: Helm, and a namespace with operators."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import rights
from cluster.chart.helm_binary import HelmMissing, built_helm
from cluster.control_plane import ControlPlane
from cluster.operated import Cluster
from cluster.release import Release

from cloaca.store import open_store
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.config import find_server, parse_url


@pytest.fixture(scope="session")
def helm() -> Path:
    """``$HELM``, or Helm built once from its Go module into the cache."""
    try:
        return built_helm()
    except HelmMissing as error:
        pytest.skip(str(error))


@pytest.fixture
async def cluster(
    control_plane: ControlPlane, tmp_path: Path, helm: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Cluster]:
    """A namespace with a release of the chart, and no operator yet. No request may be refused by the time it ends."""
    name = f"test-{os.urandom(4).hex()}"
    control_plane.namespace(name, {"pod-security.kubernetes.io/enforce": "restricted"})
    release = Release.render(helm, control_plane, name)
    release.install()
    api = Api(find_server(parse_url(f"kubernetes://{control_plane.kubeconfig}"), {}))
    store = await open_store(f"kubernetes://{control_plane.kubeconfig}?namespace={name}")
    made = Cluster(control_plane, name, api, store, tmp_path, release)
    playing = asyncio.ensure_future(made.kubelet.play())
    yield made
    for operator in list(made.processes):
        made.kill(operator)
    playing.cancel()
    await asyncio.wait({playing})
    await store.close()
    await api.close()
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
    release.remove()
    if not control_plane.processes:
        return  # somebody else's cluster keeps no record for us
    assert control_plane.asked(release.user)
    pods = {pod: f"system:serviceaccount:{name}:cloacina-{pod}" for pod in ("poller", "run", "inspection")}
    asked = {role: control_plane.asked(user) for role, user in {"operator": release.user, **pods}.items()}
    asked["operator-lead"] = asked["operator"]  # one account has both roles, here in one namespace
    shown = {role: rights.used(requests) for role, requests in asked.items()}
    rights.note(request.path, rights.granted(release.documents, f"cloacina-{name}"), shown)
    refused = [one for requests in asked.values() for one in requests if one.code == 403]
    assert not refused, "the roles of the chart do not allow what is asked for"
