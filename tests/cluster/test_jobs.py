"""Pollers, runs and inspections on a real API server with its controllers, where `restricted` is enforced."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from builders import WORKFLOW, archive, declared
from cloacina_operator.core.manifests import PodSettings
from cloacina_operator.executors.jobs import Jobs
from cloacina_operator.executors.watched import owner_uid, uid_of
from cluster.control_plane import ControlPlane
from cluster.player import Player

from cloaca.errors import ImportCrashed, LoadError
from cloaca.packages.acceptance import Accepted
from cloaca.packages.archive import Limits
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.archives import digest_of, package_parts, pieces
from cloaca.store.kubernetes.config import find_server, parse_url

PATIENCE = 30.0
TRIGGER = """
@cloaca.trigger(name="inbox", poll_interval="200ms")
def inbox():
    return cloaca.TriggerResult.skip()
"""
GROUP = "/apis/cloacina.io/v1alpha1"


class World:
    """One namespace, an executor that looks at it, and a kubelet that is played."""

    def __init__(self, plane: ControlPlane, namespace: str, api: Api, jobs: Jobs, folder: Path) -> None:
        self.plane, self.namespace, self.api, self.jobs = plane, namespace, api, jobs
        self.kubelet = Player(api, namespace, folder, plane)
        self.heard: list[Ref] = []
        self._news = asyncio.Event()

    def changed(self, ref: Ref) -> None:
        self.heard.append(ref)
        self._news.set()

    async def until(self, look: Callable[[], Any]) -> Any:
        """What ``look`` gives once it is true; it is looked at whenever the executor has told of something."""
        async with asyncio.timeout(PATIENCE):
            while not (found := look()):
                self._news.clear()
                await self._news.wait()
        return found

    async def package(self, name: str = "demo", **spec: Any) -> CloacinaPackage:
        body = {"source": {"url": "https://packages.example.com/demo.cloacina"}, **spec}
        return CloacinaPackage.model_validate(await self._made("cloacinapackages", CloacinaPackage.KIND, name, body))

    async def sourced(self, data: bytes, **spec: Any) -> CloacinaPackage:
        """A package whose source is a ConfigMap with ``data``."""
        (part,) = pieces(data, digest_of(data), "package.cloacina")
        part["metadata"]["name"] = "source"
        await self.api.request("POST", f"/api/v1/namespaces/{self.namespace}/configmaps", body=part)
        return await self.package(source={"configMap": {"name": "source"}}, **spec)

    async def place(self, package: CloacinaPackage, data: bytes) -> str:
        """What an inspection of ``package`` would have published; returns the digest."""
        for part in package_parts(package.name, package.metadata.uid, self.namespace, data):
            await self.api.request("POST", f"/api/v1/namespaces/{self.namespace}/configmaps", body=part)
        return digest_of(data)

    async def inspected(self, package: CloacinaPackage) -> Accepted:
        """What an inspection says of it."""
        report = await self.jobs.fetch(package, (), None)
        assert report.refusal is None, report
        assert report.digest is not None
        return await self.jobs.import_package(package, report.digest)

    async def run(self, name: str = "demo-1", **spec: Any) -> WorkflowRun:
        body = {"workflow": "demo", "packageRef": {"name": "demo"}, **spec}
        return WorkflowRun.model_validate(await self._made("workflowruns", WorkflowRun.KIND, name, body))

    async def _made(self, plural: str, kind: str, name: str, spec: Any) -> Any:
        body = {
            "apiVersion": "cloacina.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        return await self.api.request("POST", f"{GROUP}/namespaces/{self.namespace}/{plural}", body=body)

    async def delete(self, plural: str, name: str) -> None:
        await self.api.request("DELETE", f"{GROUP}/namespaces/{self.namespace}/{plural}/{name}")

    async def there_is(self, path: str) -> list[str]:
        items = (await self.api.request("GET", path.format(ns=self.namespace)))["items"]
        return sorted(item["metadata"]["name"] for item in items)


@pytest.fixture
async def world(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[World]:
    name = f"test-{os.urandom(4).hex()}"
    control_plane.namespace(name, {"pod-security.kubernetes.io/enforce": "restricted"})
    for account in ("cloacina-poller", "cloacina-run", "cloacina-inspection"):
        control_plane.kubectl("create", "serviceaccount", account, "-n", name)
    control_plane.kubectl("create", "role", "publish", "--verb=create", "--resource=configmaps", "-n", name)
    control_plane.kubectl(
        "create", "rolebinding", "publish", "--role=publish", f"--serviceaccount={name}:cloacina-inspection", "-n", name
    )
    api = Api(find_server(parse_url(f"kubernetes://{control_plane.kubeconfig}"), {}))
    jobs = Jobs(
        api=api,
        settings=PodSettings(image="cloacina:test"),
        limits=Limits(),
        namespaces=(name,),
        changed=lambda ref: made.changed(ref),
        now=lambda: datetime.now(timezone.utc),
    )
    made = World(control_plane, name, api, jobs, tmp_path)
    following = asyncio.ensure_future(jobs.run())
    await jobs.listed()
    yield made
    following.cancel()
    await asyncio.wait({following})
    await api.close()
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


async def test_an_archive_is_imported_by_a_pod_without_a_token(world: World) -> None:
    package = await world.sourced(archive(WORKFLOW + TRIGGER, triggers=[declared("inbox")]))
    importing = asyncio.ensure_future(world.inspected(package))

    pod = await world.kubelet.pod("inspection")
    assert await world.kubelet.execute(pod) == 0

    found = await asyncio.wait_for(importing, PATIENCE)
    assert {workflow.name: workflow.tasks for workflow in found.workflows} == {"demo": ("only",)}
    assert [trigger.name for trigger in found.triggers] == ["inbox"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    tokens = {volume["name"] for volume in pod["spec"]["volumes"] if "serviceAccountToken" in str(volume)}
    (main,) = pod["spec"]["containers"]
    assert not tokens & {mount["name"] for mount in main["volumeMounts"]}
    (part,) = [name for name in await world.there_is("/api/v1/namespaces/{ns}/configmaps") if name.startswith("demo-")]
    assert part.endswith("-000")
    assert await world.jobs.has_archive(package, digest_of(archive(WORKFLOW + TRIGGER, triggers=[declared("inbox")])))


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        pytest.param("import nothing_of_that_name", LoadError, "nothing_of_that_name", id="raises"),
        pytest.param("import os; os.abort()", ImportCrashed, "SIGABRT", id="crashes"),
    ],
)
async def test_an_import_that_fails_is_told(world: World, code: str, error: type[LoadError], words: str) -> None:
    package = await world.sourced(archive(f"{WORKFLOW}\n{code}"))
    importing = asyncio.ensure_future(world.inspected(package))

    await world.kubelet.execute(await world.kubelet.pod("inspection"))

    with pytest.raises(error, match=words):
        await asyncio.wait_for(importing, PATIENCE)


async def test_an_inspection_that_cannot_start_says_why(world: World) -> None:
    package = await world.sourced(archive(WORKFLOW))
    importing = asyncio.ensure_future(world.inspected(package))

    pod = await world.kubelet.pod("inspection")
    await world.kubelet.waits(pod, "ImagePullBackOff", "not found")
    trouble = await world.until(lambda: world.jobs.inspection(package.ref))

    assert trouble.reason == "ImagePullBackOff"
    await world.kubelet.execute(pod)
    await asyncio.wait_for(importing, PATIENCE)


async def test_an_inspection_for_an_older_spec_gives_way(world: World) -> None:
    package = await world.sourced(archive(WORKFLOW))
    old = asyncio.ensure_future(world.inspected(package))
    stuck = await world.kubelet.pod("inspection")
    await world.kubelet.waits(stuck, "ImagePullBackOff", "not found")
    old.cancel()
    newer = package.model_copy(update={"metadata": package.metadata.model_copy(update={"generation": 2})})
    new = asyncio.ensure_future(world.inspected(newer))

    async with asyncio.timeout(PATIENCE):
        while not (pods := [pod for pod in await world.kubelet.pods("inspection") if uid_of(pod) != uid_of(stuck)]):
            await asyncio.sleep(0.05)
    await world.kubelet.execute(pods[0])

    assert [workflow.name for workflow in (await asyncio.wait_for(new, PATIENCE)).workflows] == ["demo"]
    left = {owner_uid(pod) for pod in await world.kubelet.pods("inspection")} - {owner_uid(pods[0])}
    assert not left & {uid_of(job) for job in world.jobs._seen.jobs}


async def test_a_poller_is_there_once_and_moves_with_its_archive(world: World) -> None:
    package = await world.package()
    one = await world.place(package, archive(WORKFLOW + TRIGGER))
    two = await world.place(package, archive(WORKFLOW + TRIGGER, version="2.0.0"))

    await world.jobs.ensure_poller(package, one)
    assert (await world.until(lambda: world.jobs.poller(package.ref))).starting
    await world.kubelet.runs(await world.kubelet.pod("poller"))
    await world.until(lambda: not world.jobs.poller(package.ref).starting)
    before = sum(count for (verb, _), count in world.api.requests.items() if verb not in ("GET", "WATCH"))
    for _ in range(10):
        await world.jobs.ensure_poller(package, one)
    after = sum(count for (verb, _), count in world.api.requests.items() if verb not in ("GET", "WATCH"))
    assert after == before, "nothing changed, so nothing is written"

    await world.jobs.ensure_poller(package, two)

    state = await world.until(lambda: world.jobs.poller(package.ref))
    assert (state.digest, state.starting) == (two, True)
    parts = await world.there_is("/api/v1/namespaces/{ns}/configmaps")
    assert len([part for part in parts if part.startswith("demo-")]) == 2
    await world.jobs.keep_archives(package, {two})
    left = await world.there_is("/api/v1/namespaces/{ns}/configmaps")
    assert len([part for part in left if part.startswith("demo-")]) == 1, "the parts of the old archive are gone"
    await world.jobs.stop_poller(package.ref)
    await world.until(lambda: world.jobs.poller(package.ref) is None)


async def test_a_run_has_one_job_and_its_attempts_replace_each_other(world: World) -> None:
    package, run = await world.package(), await world.run()
    digest = await world.place(package, archive(WORKFLOW))

    await asyncio.gather(*(world.jobs.start_run(run, package, digest, 1) for _ in range(3)))
    pod = await world.kubelet.pod("run")
    assert pod["metadata"]["name"].startswith("demo-1-")
    assert await world.there_is("/apis/batch/v1/namespaces/{ns}/jobs") == ["demo-1"]
    await world.kubelet.ends(pod, 137, "OOMKilled")
    ended = await world.until(lambda: (e := world.jobs.execution(run.ref)) and e.ended_at and e)
    assert (ended.attempt, ended.reason) == (1, "OOMKilled")

    async def second() -> None:
        while (seen := world.jobs.execution(run.ref)) is None or seen.attempt < 2:
            await world.jobs.start_run(run, package, digest, 2)
            await asyncio.sleep(0)

    await asyncio.wait_for(second(), PATIENCE)
    assert world.jobs.execution(run.ref).ended_at is None
    assert await world.there_is("/apis/batch/v1/namespaces/{ns}/jobs") == ["demo-1"]


async def test_a_run_is_stopped_with_its_job_and_alive_until_its_pod_has_ended(world: World) -> None:
    package, run = await world.package(), await world.run()
    await world.jobs.start_run(run, package, await world.place(package, archive(WORKFLOW)), 1)
    await world.kubelet.runs(await world.kubelet.pod("run"))
    await world.until(lambda: len(list(world.jobs._seen._pods)) == 1)

    await world.jobs.stop_run(run.ref)

    await world.until(lambda: world.jobs.execution(run.ref) is None)
    assert list(world.jobs._seen._pods) == []
    assert not world.jobs.running()


QUOTA = {"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"pods": "0"}}}
ROOT = {"spec": {"securityContext": {"runAsNonRoot": False}, "containers": [{"name": "main"}]}}


async def test_a_quota_that_refuses_the_pod_is_told(world: World) -> None:
    world.plane.apply({**QUOTA, "metadata": {"name": "none", "namespace": world.namespace}})
    package, run = await world.package(), await world.run()

    await world.jobs.start_run(run, package, await world.place(package, archive(WORKFLOW)), 1)

    seen = await world.until(lambda: (e := world.jobs.execution(run.ref)) and e.reason and e)
    assert seen.reason == "QuotaExceeded", seen
    assert seen.ended_at is None


async def test_a_pod_that_the_namespace_forbids_is_told(world: World) -> None:
    package, run = await world.package(podTemplate=ROOT), await world.run()

    await world.jobs.start_run(run, package, await world.place(package, archive(WORKFLOW)), 1)

    seen = await world.until(lambda: (e := world.jobs.execution(run.ref)) and e.reason and e)
    assert seen.reason == "PodForbidden"
    assert "runAsNonRoot" in seen.how


async def test_a_template_that_is_no_pod_is_told(world: World) -> None:
    package = await world.package(podTemplate={"spec": {"nodeSelecter": {"disk": "ssd"}}})
    run = await world.run()

    await world.jobs.start_run(run, package, await world.place(package, archive(WORKFLOW)), 1)

    seen = world.jobs.execution(run.ref)
    assert seen is not None
    assert seen.reason == "PodForbidden"
    assert "nodeSelecter" in seen.how


async def test_a_job_of_somebody_else_is_left_alone(world: World) -> None:
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"suspend": True, "template": pod}}
    world.plane.apply({**job, "metadata": {"name": "demo-1", "namespace": world.namespace}})
    package, run = await world.package(), await world.run()

    await world.jobs.start_run(run, package, await world.place(package, archive(WORKFLOW)), 1)

    assert world.jobs.execution(run.ref).reason == "NameTaken"


async def test_a_name_too_long_for_a_cluster_is_told(world: World) -> None:
    package = await world.package(name="p" * 40)

    await world.jobs.ensure_poller(package, await world.place(package, archive(WORKFLOW)))

    state = world.jobs.poller(package.ref)
    assert state is not None
    assert state.reason == "NameTooLong"


async def test_with_the_package_everything_of_it_goes_without_us(world: World) -> None:
    package, run = await world.package(), await world.run()
    digest = await world.place(package, archive(WORKFLOW + TRIGGER))
    await world.jobs.ensure_poller(package, digest)
    await world.jobs.start_run(run, package, digest, 1)
    await world.kubelet.runs(await world.kubelet.pod("poller"))
    await world.kubelet.pod("run")

    await world.delete("cloacinapackages", "demo")
    await world.delete("workflowruns", "demo-1")

    await world.until(lambda: not list(world.jobs._seen.jobs) and not list(world.jobs._seen.deployments))
    await world.until(lambda: not list(world.jobs._seen._pods))
    async with asyncio.timeout(PATIENCE):
        while [n for n in await world.there_is("/api/v1/namespaces/{ns}/configmaps") if n.startswith("demo-")]:
            await asyncio.sleep(0.05)
