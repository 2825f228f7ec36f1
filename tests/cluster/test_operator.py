"""The operator as processes on a real API server with its controllers; pods are real processes that a player starts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from aiohttp import web
from builders import WORKFLOW, archive, declared
from cluster.control_plane import Asked, ControlPlane
from cluster.player import Player
from cluster.proxy import proxied
from cluster.release import Release

from cloaca.resources import CloacinaPackage, ObjectMeta, RunPhase, Trigger, WorkflowRun
from cloaca.resources.conditions import find
from cloaca.resources.package import (
    ActivePackage,
    ConfigMapSource,
    PackageSource,
    PackageSpec,
    SecretReference,
    TaskEntry,
    TriggerEntry,
    WorkflowEntry,
)
from cloaca.resources.run import RunSpec
from cloaca.resources.trigger import PackageReference
from cloaca.store import Store, open_store
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.config import find_server, parse_url

ROOT = Path(__file__).parents[2]
WATCHES = 9  # of an operator: its Lease, our four kinds, Deployments, Jobs, pods, refusals
PATIENCE = 110.0  # seconds, where pods are processes on a busy machine
TRIGGER = """
@cloaca.trigger(name="inbox", poll_interval="200ms")
def inbox():
    return cloaca.TriggerResult.fire(cloaca.Context({"n": 1}), key="once")
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Cluster:
    """One namespace, its operators, and a kubelet that is played."""

    def __init__(
        self, plane: ControlPlane, namespace: str, api: Api, store: Store, folder: Path, release: Release
    ) -> None:
        self.plane, self.namespace, self.api, self.store, self.folder = plane, namespace, api, store, folder
        self.kubelet = Player(api, namespace, folder, plane)
        self.release = release
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}

    def start(self, name: str, **environment: str) -> None:
        """Start an operator."""
        self.ports[name] = free_port()
        settings = {
            **self.release.environment,
            "KUBECONFIG": str(self.release.kubeconfig(name)),
            "CLOACINA_POD_NAMESPACE": self.namespace,
            "CLOACINA_POD": name,
            "CLOACINA_PORT": str(self.ports[name]),
            **environment,
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(Path(sys.executable).with_name("cloacina-operator"))],
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def writes(self) -> list[Asked]:
        """What the operator wrote, but its Lease."""
        asked = self.plane.asked(self.release.user)
        return [one for one in asked if one.verb not in ("get", "list", "watch") and one.resource != "leases"]

    def kubectl(self, *words: str) -> None:
        self.plane.kubectl(*words, "-n", self.namespace)

    def ask(self, name: str, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    async def eventually(self, what: str, look: Callable[[], Awaitable[Any]]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := await look():
                return found
            await asyncio.sleep(0.05)
        logs = "".join(f"== {log.name}\n{log.read_text()[-3000:]}\n" for log in self.folder.glob("*.log"))
        kinds = "cloacinapackages,triggers.cloacina.io,workflowruns,deployments,jobs,pods"
        seen = self.plane.kubectl("get", kinds, "-n", self.namespace, "-o", "yaml", "--show-managed-fields=false")
        pytest.fail(f"waited {PATIENCE:g} s for {what}\n{seen[-9000:]}\n{logs}")

    async def leads(self, name: str) -> None:
        async def look() -> bool:
            with suppress(OSError):
                return "leads" in await asyncio.to_thread(self.ask, name, "/readyz")
            return False

        await self.eventually(f"{name} to lead", look)

    async def package(self, code: str = WORKFLOW, triggers: tuple[str, ...] = ()) -> CloacinaPackage:
        """A package whose archive was accepted before."""
        data = archive(code, triggers=[declared(name) for name in triggers])
        digest = await self.store.put_archive(data)
        source = PackageSource(url="https://127.0.0.1:1/demo.cloacina")
        made = await self.store.create(
            CloacinaPackage(metadata=ObjectMeta(name="demo", namespace=self.namespace), spec=PackageSpec(source=source))
        )
        entries = tuple(TriggerEntry(name=name, workflow="demo", poll_interval="200ms") for name in triggers)
        return await self.store.write_status(
            made.with_status(
                active=ActivePackage(digest=digest, version="1.0.0", since=datetime.now(timezone.utc)),
                workflows=(WorkflowEntry(name="demo", tasks=("only",)),),
                tasks=(TaskEntry(id="only"),),
                triggers=entries,
            )
        )

    async def sourced(self, **spec: Any) -> CloacinaPackage:
        """A package of that spec, once its archive was accepted."""
        ref = CloacinaPackage(metadata=ObjectMeta(name="demo", namespace=self.namespace), spec=PackageSpec(**spec))
        await self.store.create(ref)

        async def accepted() -> CloacinaPackage | None:
            found = await self.store.get(CloacinaPackage, "demo", self.namespace)
            return found if found is not None and found.status.active is not None else None

        return await self.eventually("the archive to be accepted", accepted)  # type: ignore[no-any-return]  # as above

    async def submit(self, name: str, package: CloacinaPackage, **spec: Any) -> WorkflowRun:
        return await self.store.create(
            WorkflowRun(
                metadata=ObjectMeta(name=name, namespace=self.namespace),
                spec=RunSpec(workflow="demo", package_ref=PackageReference(name=package.name), **spec),
            )
        )

    async def ended(self, count: int) -> tuple[WorkflowRun, ...]:
        async def look() -> Any:
            runs = await self.store.list(WorkflowRun, self.namespace)
            return runs if len(runs) == count and all(run.status.phase.finished for run in runs) else None

        return await self.eventually(f"{count} runs to end", look)  # type: ignore[no-any-return]  # what look gives


@pytest.fixture
async def cluster(control_plane: ControlPlane, tmp_path: Path, helm: Path) -> AsyncIterator[Cluster]:
    name = f"test-{os.urandom(4).hex()}"
    control_plane.namespace(name, {"pod-security.kubernetes.io/enforce": "restricted"})
    release = Release.render(helm, control_plane, name, f"sourceSecrets[0].namespace={name}",
                             "sourceSecrets[0].names={registry}")  # fmt: skip
    release.install()
    api = Api(find_server(parse_url(f"kubernetes://{control_plane.kubeconfig}"), {}))
    store = await open_store(f"kubernetes://{control_plane.kubeconfig}?namespace={name}&archives={name}")
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
    accounts = (release.user, *(f"system:serviceaccount:{name}:cloacina-{pod}" for pod in ("poller", "run")))
    refused = [request for user in accounts for request in control_plane.asked(user) if request.code == 403]
    assert not refused, "the roles of the chart do not allow what is asked for"


async def test_a_fire_makes_a_pod_that_runs(cluster: Cluster) -> None:
    cluster.start("one")
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
    assert dashboard_names() <= names_of(cluster.ask("one", "/metrics"))


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


async def test_an_archive_comes_with_credentials_of_a_secret(cluster: Cluster) -> None:
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
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        cluster.start("one")
        cluster.kubectl("create", "secret", "generic", "registry", "--from-literal=token=open-sesame")

        package = await cluster.sourced(
            source=PackageSource(url=f"http://127.0.0.1:{port}/demo.cloacina"),
            secret_ref=SecretReference(name="registry"),
        )

        assert package.status.active is not None
        assert set(asked) == {"Bearer open-sesame"}
    finally:
        await runner.cleanup()


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
            await cluster.store.write_status(made.with_status(**dict(package.status)))
            await cluster.store.create(WorkflowRun(metadata=ObjectMeta(name="there", namespace=namespace), spec=spec))
        await cluster.submit("here", package)

        async def started() -> bool:
            jobs = await cluster.api.request("GET", f"/apis/batch/v1/namespaces/{second}/jobs")
            return [job["metadata"]["name"] for job in jobs["items"]] == ["there"]

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

    written = [write for write in cluster.writes()[before:] if "canary" not in write.path]
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
