"""The operator as processes on a real API server with its controllers; pods are real processes that a player starts."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from aiohttp import web
from builders import WORKFLOW, archive, declared
from cluster.control_plane import Asked
from cluster.operated import PATIENCE, Cluster
from cluster.proxy import proxied
from cluster.release import Release
from figures import figures, page
from servers import Certificate, free_port, own_certificate

from cloaca.packages.archive import digest_of
from cloaca.resources import CloacinaPackage, ObjectMeta, RunPhase, Trigger, WorkflowRun
from cloaca.resources.conditions import find
from cloaca.resources.package import ConfigMapSource, PackageSource, PackageSpec, SecretReference
from cloaca.resources.run import RunSpec
from cloaca.resources.trigger import PackageReference

ROOT = Path(__file__).parents[2]
WATCHES = 10  # of an operator: its Lease, our four kinds, Deployments, ReplicaSets, Jobs, pods, refusals
TRIGGER = """
@cloaca.trigger(name="inbox", poll_interval="200ms")
def inbox():
    return cloaca.TriggerResult.fire(cloaca.Context({"n": 1}), key="once")
"""


async def test_a_fire_makes_a_pod_that_runs(cluster: Cluster) -> None:
    port = free_port()
    cluster.start("one", CLOACINA_POLLER_PORT=str(port))
    await cluster.package(WORKFLOW + TRIGGER, ("inbox",))

    (run,) = await cluster.ended(1)

    assert (run.status.phase, run.spec.key) == (RunPhase.COMPLETED, "once")
    assert run.status.pod_name is not None
    assert run.status.pod_name.startswith(f"{run.name}-")

    async def polling() -> Any:
        package = await cluster.store.get(CloacinaPackage, "demo", cluster.namespace)
        found = None if package is None else find(package.status.conditions, "Polling")
        return found is not None and found.status.value == "True"

    await cluster.eventually("the package to be polled", polling)
    assert "cloacina_operator_runs_started_total 1.0" in cluster.ask("one", "/metrics")
    assert cluster.ask("one", "/healthz") == "ok\n"
    polls = await asyncio.to_thread(page, port)
    seen, whose = figures(polls), f"{cluster.namespace} demo"
    assert seen[f"cloacina_polls_total {whose} fired"] == seen[f"cloacina_fires_total {whose}"] == 1
    assert dashboard_names() <= names_of(cluster.ask("one", "/metrics")) | names_of(polls)


def dashboard_names() -> set[str]:
    """Every metric that a panel of the Grafana dashboard asks for."""
    dashboard = json.loads((ROOT / "manifests" / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return {name for expression in asked for name in re.findall(r"\b(?:cloacina|process)_[a-z_]+", expression)}


def names_of(scrape: str) -> set[str]:
    """Every metric that a scrape has, by its types: one that nothing was counted in yet has no value."""
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", scrape, re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}
    return names


async def test_the_leader_is_killed_and_the_other_goes_on(cluster: Cluster) -> None:
    cluster.start("one")
    await cluster.leads("one")
    cluster.start("two")
    package = await cluster.package()
    await cluster.submit("before", package)
    await cluster.ended(1)

    cluster.kill("one")
    await cluster.submit("between", package)
    await cluster.leads("two")

    runs = await cluster.ended(2)
    assert [(run.name, run.status.phase, run.status.attempt) for run in runs] == [
        ("before", RunPhase.COMPLETED, 1),
        ("between", RunPhase.COMPLETED, 1),
    ]


async def test_watches_that_die_in_silence_turn_the_probe_red(cluster: Cluster) -> None:
    """The Lease is written and read, on connections that work, and its echo does not come."""
    async with proxied(cluster.release.kubeconfig("one"), cluster.folder) as (proxy, kubeconfig):
        cluster.start("one", KUBECONFIG=str(kubeconfig))
        await cluster.leads("one")
        assert cluster.ask("one", "/healthz") == "ok\n"

        async def silenced() -> bool:
            return proxy.silence(idle=5.0) >= WATCHES

        await cluster.eventually("all watches to be silent", silenced)

        async def red() -> str | None:
            try:
                await asyncio.to_thread(cluster.ask, "one", "/healthz")
            except HTTPError as error:
                with error:
                    return f"{error.code}: {error.read().decode()}"
            return None

        said = await cluster.eventually("the probe to fail", red)
        assert said == "500: the lease is written, and does not come back through the watch\n"
        cluster.kill("one")


async def test_two_leaders_are_harmless(cluster: Cluster) -> None:
    for name in ("one", "two"):
        cluster.start(name, CLOACINA_LEASE="-")
        await cluster.leads(name)
    package = await cluster.package(WORKFLOW + TRIGGER, ("inbox",))
    for number in range(5):
        await cluster.submit(f"by-hand-{number}", package)

    runs = await cluster.ended(6)

    assert {(run.status.phase, run.status.attempt, run.status.failures) for run in runs} == {(RunPhase.COMPLETED, 1, 0)}


async def test_an_archive_comes_from_a_config_map(cluster: Cluster) -> None:
    cluster.start("one")
    (cluster.folder / "demo.cloacina").write_bytes(archive(WORKFLOW))
    cluster.kubectl("create", "configmap", "shipped", f"--from-file=archive={cluster.folder}/demo.cloacina")

    package = await cluster.sourced(source=PackageSource(config_map=ConfigMapSource(name="shipped", key="archive")))

    await cluster.submit("by-hand", package)
    (run,) = await cluster.ended(1)
    assert run.status.phase is RunPhase.COMPLETED


async def test_a_deployment_waits_until_its_archive_is_active_or_refused(cluster: Cluster) -> None:
    cluster.start("one")
    path = cluster.folder / "demo.cloacina"

    async def deploy(data: bytes) -> tuple[int, str]:
        path.write_bytes(data)
        where = ("--kubeconfig", str(cluster.plane.kubeconfig), "-n", cluster.namespace)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cloaca.cli.main", "deploy", str(path), "--wait", *where),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode is not None
        return process.returncode, said.decode()

    code, said = await deploy(archive(WORKFLOW))
    assert (code, said.splitlines()[0].split(":")[0]) == (0, "cloacinapackage.cloacina.io/demo created"), said
    assert said.splitlines()[-1].startswith("Ready"), said

    other = [{"id": "other", "function": "demo:other", "dependencies": []}]
    code, said = await deploy(archive(WORKFLOW, version="2.0.0", tasks=other))
    assert code == 1, said
    assert "package 'demo' was refused: " in said

    package = await cluster.store.get(CloacinaPackage, "demo", cluster.namespace)
    assert package is not None
    assert package.status.active is not None
    assert package.status.active.version == "1.0.0", "the archive before goes on working"


async def test_an_archive_comes_with_credentials_of_a_secret(cluster: Cluster, tmp_path: Path) -> None:
    certificate = own_certificate(tmp_path)
    asked: list[str | None] = []

    async def private(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization"))
        if asked[-1] != "Bearer open-sesame":
            raise web.HTTPUnauthorized
        return web.Response(body=archive(WORKFLOW))

    app = web.Application()
    app.router.add_get("/demo.cloacina", private)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=certificate.served).start()
    try:
        cluster.start("one")
        cluster.kubectl("create", "secret", "generic", "registry", "--from-literal=token=open-sesame")

        package = await cluster.sourced(
            source=PackageSource(url=f"https://127.0.0.1:{port}/demo.cloacina"),
            secret_ref=SecretReference(name="registry"),
            pod_template=trusting(certificate),
        )

        assert package.status.active is not None
        assert set(asked) == {"Bearer open-sesame"}
    finally:
        await runner.cleanup()


def trusting(certificate: Certificate) -> dict[str, Any]:
    """A podTemplate with which the container that fetches trusts ``certificate``."""
    trusted = {"name": "SSL_CERT_FILE", "value": str(certificate.path)}
    return {"spec": {"initContainers": [{"name": "fetch", "env": [trusted]}]}}


class Served:
    """A source that tells versions, and counts who asks."""

    def __init__(self) -> None:
        self.data = archive(WORKFLOW)
        self.asked: Counter[int] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        tag = f'"{digest_of(self.data)[:20]}"'
        same = request.headers.get("If-None-Match") == tag
        self.asked[304 if same else 200] += 1
        return web.Response(status=304) if same else web.Response(body=self.data, headers={"ETag": tag})


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Served, dict[str, Any]]]:
    """A source, and the fields of a spec that has it."""
    source, app, certificate = Served(), web.Application(), own_certificate(tmp_path)
    app.router.add_get("/demo.cloacina", source.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.served).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/demo.cloacina"
    yield source, {"source": PackageSource(url=url), "pod_template": trusting(certificate)}
    await runner.cleanup()


async def test_after_a_restart_nothing_is_fetched_again(
    cluster: Cluster, served: tuple[Served, dict[str, Any]]
) -> None:
    source, spec = served
    cluster.start("one")
    package = await cluster.sourced(**spec)
    await cluster.submit("demo-1", package)
    await cluster.ended(1)
    cluster.kill("one")
    asked = source.asked.total()

    cluster.start("two")
    await cluster.submit("demo-2", package)
    await cluster.ended(2)

    assert source.asked.total() == asked
    assert await cluster.kubelet.pods("inspection") == []


async def test_news_of_a_source_come_from_the_pod_that_waits_for_them(
    cluster: Cluster, served: tuple[Served, dict[str, Any]]
) -> None:
    source, spec = served
    cluster.start("one")
    await cluster.sourced(**spec, interval="10s")

    async def waits() -> Any:
        return source.asked[304] >= 1

    await cluster.eventually("the source to be asked again", waits)
    waiting = await cluster.kubelet.pod("inspection")
    source.data = archive(WORKFLOW, version="2.0.0")

    async def newer() -> Any:
        found = await cluster.store.get(CloacinaPackage, "demo", cluster.namespace)
        return found is not None and found.status.active is not None and found.status.active.version == "2.0.0"

    await cluster.eventually("the newer archive to be active", newer)
    assert source.asked[200] == 2, "the bytes are sent once an archive"
    assert waiting["metadata"]["uid"] in cluster.kubelet.fetched, "the pod that waited went on"


async def test_what_is_deleted_while_no_operator_runs_goes_with_all_it_owns(cluster: Cluster) -> None:
    cluster.start("one")
    package = await cluster.package(WORKFLOW + TRIGGER, ("inbox",))
    await cluster.ended(1)
    cluster.kill("one")

    await cluster.store.delete(package.ref)

    async def gone() -> bool:
        left = [
            item
            for path in ("/apis/apps/v1/namespaces/{}/deployments", "/apis/batch/v1/namespaces/{}/jobs",
                         "/api/v1/namespaces/{}/pods", "/apis/cloacina.io/v1alpha1/namespaces/{}/triggers",
                         "/apis/cloacina.io/v1alpha1/namespaces/{}/workflowruns")
            for item in (await cluster.api.request("GET", path.format(cluster.namespace)))["items"]
        ]  # fmt: skip
        return not left

    await cluster.eventually("everything to go", gone)


async def test_one_operator_looks_after_several_namespaces_and_after_no_other(cluster: Cluster, helm: Path) -> None:
    second, stranger = f"{cluster.namespace}-b", f"{cluster.namespace}-c"
    for name in (second, stranger):
        cluster.plane.namespace(name)
    both = Release.render(helm, cluster.plane, cluster.namespace, f"packageNamespaces={{{cluster.namespace},{second}}}")
    both.install()
    cluster.release = both
    try:
        cluster.start("one")
        package = await cluster.package()
        spec = RunSpec(workflow="demo", package_ref=PackageReference(name="demo"))
        for namespace in (second, stranger):
            source = PackageSource(url="https://127.0.0.1:1/demo.cloacina")
            metadata = ObjectMeta(name="demo", namespace=namespace)
            made = await cluster.store.create(CloacinaPackage(metadata=metadata, spec=PackageSpec(source=source)))
            await cluster.publish(made, archive(WORKFLOW, triggers=[]))
            await cluster.store.write_status(made.with_status(**dict(package.status)))
            await cluster.store.create(WorkflowRun(metadata=ObjectMeta(name="there", namespace=namespace), spec=spec))
        await cluster.submit("here", package)

        async def started() -> bool:
            jobs = await cluster.api.request("GET", f"/apis/batch/v1/namespaces/{second}/jobs")
            return "there" in [job["metadata"]["name"] for job in jobs["items"]]

        await cluster.eventually("the run of the second namespace to have its Job", started)
        await cluster.ended(1)
        assert (await cluster.api.request("GET", f"/apis/batch/v1/namespaces/{stranger}/jobs"))["items"] == []
    finally:
        for name in (second, stranger):
            cluster.plane.kubectl("delete", "namespace", name, "--wait=false")


async def test_at_rest_nothing_is_written_however_often_it_is_looked_at(cluster: Cluster) -> None:
    """By the API server's own record: everything is touched, looked at again, and left as it is."""
    if not cluster.plane.processes:
        pytest.skip("somebody else's cluster keeps no record for us")
    cluster.start("one")
    (cluster.folder / "demo.cloacina").write_bytes(archive(WORKFLOW + TRIGGER, triggers=[declared("inbox")]))
    cluster.kubectl("create", "configmap", "shipped", f"--from-file=archive={cluster.folder}/demo.cloacina")
    package = await cluster.sourced(source=PackageSource(config_map=ConfigMapSource(name="shipped", key="archive")))
    await cluster.ended(1)

    async def settled() -> bool:
        trigger = (await cluster.store.list(Trigger, cluster.namespace))[0]
        seen = await cluster.store.get(CloacinaPackage, "demo", cluster.namespace)
        ready = None if seen is None else find(seen.status.conditions, "Ready")
        return ready is not None and ready.status.value == "True" and not trigger.status.active

    await cluster.eventually("everything to settle", settled)
    await cluster.submit("first-canary", package)  # whatever was under way before it has been looked at when it ends
    await cluster.ended(2)
    before = len(cluster.writes())

    for number in range(10):
        kinds = "cloacinapackages,triggers.cloacina.io,workflowruns"
        cluster.kubectl("annotate", kinds, "--all", f"touched={number}", "--overwrite")
    await cluster.submit("canary", package)
    await cluster.ended(3)

    written = [one for one in cluster.writes()[before:] if "canary" not in one.path]
    written = [one for one in written if one.resource != "events" or "canary" not in one.name]
    path = f"/apis/batch/v1/namespaces/{cluster.namespace}/jobs?fieldValidation=Strict"
    assert written == [Asked("create", "jobs", "canary", 201, path)]


async def test_the_operator_stops_when_asked(cluster: Cluster) -> None:
    cluster.start("one")
    await cluster.leads("one")

    cluster.processes["one"].send_signal(signal.SIGTERM)

    code = await asyncio.to_thread(cluster.processes["one"].wait, PATIENCE)
    assert code == 0, (cluster.folder / "one.log").read_text()
    cluster.start("two")
    await cluster.leads("two")
