"""Nothing that the API server accepts stops the operator or a poller, and a neighbour's package goes on meanwhile.

``$ODD_OBJECTS`` says how many objects are tried (400), ``$ODD_SEED`` which ones: a failure prints the seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from builders import WORKFLOW, archive, declared
from cluster.control_plane import ControlPlane
from cluster.odd_objects import OBJECTS, PACKAGE, Object
from cluster.operated import Cluster
from cluster.release import Release
from hypothesis import HealthCheck, Phase, given, seed, settings

from cloaca.errors import StoreError
from cloaca.packages.archive import digest_of
from cloaca.resources import STORED_KINDS, RunPhase
from cloaca.resources.package import ConfigMapSource, PackageSource
from cloaca.store import open_store
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.config import find_server, parse_url
from cloaca.store.kubernetes.refusals import Again

COUNT = int(os.environ.get("ODD_OBJECTS", "400"))
SEED = int(os.environ.get("ODD_SEED", "20261201"))
AT_ONCE = 25
TRIGGER = """
@cloaca.trigger(name="inbox", poll_interval="200ms")
def inbox():
    return cloaca.TriggerResult.fire(cloaca.Context({"n": 1}), key="once")
"""
_PLURALS = {
    **{kind.KIND: kind.PLURAL for kind in STORED_KINDS},
    "Job": "jobs", "Pod": "pods", "Deployment": "deployments", "ConfigMap": "configmaps", "Lease": "leases",
}  # fmt: skip


def generated(count: int) -> list[Object]:
    """The same objects for the same seed."""
    found: list[Object] = []

    @seed(SEED)
    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(OBJECTS)
    def collect(obj: Object) -> None:
        found.append(obj)

    collect()
    return found


class Hostile:
    """A namespace in which somebody makes whatever the API server takes."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self.tried: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()

    async def make(self, obj: Object, number: int) -> None:
        """The object, and then its status."""
        kind, version = obj["kind"], obj["apiVersion"]
        name = obj["metadata"]["name"]
        if number % 3:  # else one replaces nothing, and is refused where the name is taken
            name = f"{name[:40]}-{number}"
        prefix = "/api/v1" if version == "v1" else f"/apis/{version}"
        path = f"{prefix}/namespaces/{self._namespace}/{_PLURALS[kind]}"
        body = {**obj, "metadata": {**obj["metadata"], "name": name}}
        status = body.pop("status", None)
        if await self._ask(kind, "POST", path, body) and status:
            await self._ask(f"{kind}/status", "PATCH", f"{path}/{name}/status", {"status": status})

    async def _ask(self, what: str, method: str, path: str, body: Any) -> bool:
        self.tried[what] += 1
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            await self._api.request(method, path, body=body, content_type=content)
        except (StoreError, Again, RecursionError):
            return False
        self.accepted[what] += 1
        return True


@pytest.fixture
async def neighbours(
    control_plane: ControlPlane, tmp_path: Path, helm: Path
) -> AsyncIterator[tuple[Cluster, Hostile, str]]:
    """An operator's namespace, and one of strangers that it looks after too."""
    name, other = (f"{word}-{os.urandom(4).hex()}" for word in ("good", "odd"))
    for namespace in (name, other):
        control_plane.namespace(namespace, {"pod-security.kubernetes.io/enforce": "restricted"})
    release = Release.render(helm, control_plane, name, f"packageNamespaces={{{name},{other}}}")
    release.install()
    api = Api(find_server(parse_url(f"kubernetes://{control_plane.kubeconfig}"), {}))
    store = await open_store(f"kubernetes://{control_plane.kubeconfig}?namespace={name}")
    cluster = Cluster(control_plane, name, api, store, tmp_path, release)
    playing = asyncio.ensure_future(cluster.kubelet.play())
    yield cluster, Hostile(api, other), other
    for operator in list(cluster.processes):
        cluster.kill(operator)
    playing.cancel()
    await asyncio.wait({playing})
    await store.close()
    await api.close()
    for namespace in (name, other):
        control_plane.kubectl("delete", "namespace", namespace, "--wait=false")
    release.remove()


def polling(cluster: Cluster, namespace: str, digest: str, data: bytes) -> subprocess.Popen[bytes]:
    """A poller of the package that many of the odd triggers name."""
    parts = cluster.folder / "poller-archive"
    parts.mkdir()
    (parts / "000").write_bytes(data)
    store = f"kubernetes://{cluster.plane.kubeconfig}?namespace={namespace}&cached=true&package={PACKAGE}"
    command = [sys.executable, "-m", "cloaca.processes.poll", "--package", PACKAGE, "--namespace", namespace,
               "--store", store, "--archive", str(parts), "--digest", digest]  # fmt: skip
    with (cluster.folder / "odd-poller.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


async def test_whatever_the_server_accepts_stops_nobody(neighbours: tuple[Cluster, Hostile, str]) -> None:
    cluster, hostile, odd = neighbours
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)  # of the tests alone: they write what is nested deeper than Python reads
    objects = await asyncio.to_thread(generated, COUNT)
    data = archive(WORKFLOW + TRIGGER, triggers=[declared("inbox")])
    digest = digest_of(data)
    (cluster.folder / "demo.cloacina").write_bytes(data)
    cluster.start("one")
    await cluster.leads("one")
    poller = polling(cluster, odd, digest, data)
    told = f"seed {SEED}, {COUNT} objects"
    try:
        for start in range(0, len(objects), AT_ONCE):
            batch = objects[start : start + AT_ONCE]
            await asyncio.gather(*(hostile.make(obj, start + place) for place, obj in enumerate(batch)))
            if start == len(objects) // AT_ONCE // 2 * AT_ONCE:
                cluster.kubectl("create", "configmap", "shipped", f"--from-file=archive={cluster.folder}/demo.cloacina")
                source = PackageSource(config_map=ConfigMapSource(name="shipped", key="archive"))
                package = await cluster.sourced(source=source)
            said = f"{told}: after {start + len(batch)}, of which the last are {json.dumps(batch, default=str)[:20000]}"
            assert cluster.processes["one"].poll() is None, f"the operator ended: {said}"
            assert poller.poll() is None, f"the poller ended: {said}"
        (fired,) = await cluster.ended(1)
        assert (fired.status.phase, fired.spec.key) == (RunPhase.COMPLETED, "once"), told
        await cluster.submit("by-hand", package)
        assert {run.status.phase for run in await cluster.ended(2)} == {RunPhase.COMPLETED}, told
        assert cluster.processes["one"].poll() is None, told
        assert poller.poll() is None, told

        cluster.kill("one")  # and one that begins with all of it
        cluster.start("two")
        await cluster.leads("two")
        await cluster.submit("afterwards", package)
        assert {run.status.phase for run in await cluster.ended(3)} == {RunPhase.COMPLETED}, told
        assert cluster.processes["two"].poll() is None, told
        figures = cluster.ask("two", "/metrics")
        print("\n".join(line for line in figures.splitlines() if line.startswith("cloacina_objects_left_out")))
    finally:
        sys.setrecursionlimit(limit)
        poller.kill()
        poller.wait()
    for what, tried in sorted(hostile.tried.items()):
        print(f"{what}: tried {tried}, accepted {hostile.accepted[what]}")
    print(f"seed {SEED}: {hostile.tried.total()} requests, {hostile.accepted.total()} accepted, 0 restarts")
    for kind in STORED_KINDS:
        assert hostile.accepted[kind.KIND], f"no {kind.KIND} was accepted: the generator is wrong"
