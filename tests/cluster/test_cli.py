"""The command line on a real API server, as a person who may edit one namespace and nothing else."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import web
from builders import WORKFLOW, archive, declared
from cluster import certificates
from cluster.control_plane import ControlPlane

from cloaca.cli.main import main
from cloaca.resources import CloacinaPackage, ConcurrencyPolicy, ObjectMeta, RunPhase, Trigger, WorkflowRun, owned_by
from cloaca.resources.package import ActivePackage, PackageSource, PackageSpec, TriggerEntry, WorkflowEntry
from cloaca.resources.trigger import EffectiveSettings, PackageReference, TriggerSpec
from cloaca.store import Store, open_store
from cloaca.store.kubernetes.archives import digest_of, package_parts

T = TypeVar("T")

TRIGGER = """
@cloaca.trigger(name="inbox", poll_interval="200ms")
def inbox():
    return cloaca.TriggerResult.fire(cloaca.Context({"n": 1}), key="once")
"""
DATA = archive(WORKFLOW + TRIGGER, triggers=[declared("inbox")])


class Person:
    """``person(…)`` calls the command line with what was set up for them."""

    def __init__(self, plane: ControlPlane, namespace: str, kubeconfig: Path, capsys: pytest.CaptureFixture[str]):
        self.plane, self.namespace, self.kubeconfig, self._capsys = plane, namespace, kubeconfig, capsys

    def __call__(self, *words: str, place: tuple[str, ...] = ("--kubernetes",), code: int = 0) -> str:
        """What it printed; on standard error where it is to fail."""
        self._capsys.readouterr()
        ended = main([*place, *words])
        said = self._capsys.readouterr()
        assert ended == code, said.out + said.err
        return said.err if code else said.out

    def store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """What ``work`` returns, done by the administrator."""

        async def opened() -> T:
            store = await open_store(f"kubernetes://{self.plane.kubeconfig}?namespace={self.namespace}")
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(opened())


@pytest.fixture
def person(
    control_plane: ControlPlane, namespace: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Person]:  # fmt: skip
    name = f"person-of-{namespace}"
    kubeconfig = control_plane.kubeconfig_of_user(name, namespace=namespace)
    control_plane.kubectl("create", "rolebinding", "person", "-n", namespace, "--clusterrole=edit", f"--user={name}")
    control_plane.kubectl("create", "role", "cloacina", "-n", namespace, "--verb=*",
                          "--resource=cloacinapackages,triggers.cloacina.io,workflowruns,triggerledgers")  # fmt: skip
    control_plane.kubectl("create", "rolebinding", "cloacina", "-n", namespace, "--role=cloacina", f"--user={name}")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("CLOACINA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return Person(control_plane, namespace, kubeconfig, capsys)


@pytest.fixture
def deployed(person: Person) -> Person:
    """With the package ``demo`` and its trigger ``demo-inbox``, as an operator that accepted it leaves them."""
    now = datetime.now(timezone.utc)

    async def work(store: Store) -> None:
        digest = digest_of(DATA)
        source = PackageSource(url="https://127.0.0.1:1/demo.cloacina")
        metadata = ObjectMeta(name="demo", namespace=person.namespace)
        package = await store.create(CloacinaPackage(metadata=metadata, spec=PackageSpec(source=source)))
        entry = TriggerEntry(name="inbox", workflow="demo", poll_interval="200ms", allow_concurrent=False)
        package = await store.write_status(
            package.with_status(
                active=ActivePackage(digest=digest, version="1.0.0", since=now),
                workflows=(WorkflowEntry(name="demo", tasks=("only",)),),
                triggers=(entry,),
            )
        )
        metadata = ObjectMeta(name="demo-inbox", namespace=person.namespace, owner_references=(owned_by(package),))
        spec = TriggerSpec(package_ref=PackageReference(name="demo"), name="inbox")
        trigger = await store.create(Trigger(metadata=metadata, spec=spec))
        effective = EffectiveSettings(
            workflow="demo", poll_interval="200ms", concurrency_policy=ConcurrencyPolicy.FORBID, timeout="60s",
            config={}, digest=digest,
        )  # fmt: skip
        await store.write_status(trigger.with_status(effective=effective))

    person.store(work)
    return person


def test_a_package_is_deployed_looked_at_and_deleted(person: Person, tmp_path: Path) -> None:
    (tmp_path / "demo.cloacina").write_bytes(DATA)
    said = person("deploy", "demo.cloacina")
    assert said == (f"cloacinapackage.cloacina.io/demo created: version 1.0.0, {digest_of(DATA)}, in one ConfigMap\n")
    assert "demo" in person("get", "cpkg")
    assert "ConfigMap demo-source-" in person("describe", "cpkg", "demo")
    assert json.loads(person("get", "cpkg", "demo", "-o", "json"))["spec"]["digest"] == digest_of(DATA)
    assert "1" in person("status")
    person("suspend", "cpkg/demo")
    assert "unchanged" in person("suspend", "cpkg/demo")
    person("resume", "cpkg/demo")
    assert 'cloacinapackage.cloacina.io "demo" deleted' in person("delete", "cpkg", "demo")
    assert "there is no CloacinaPackage 'demo'" in person("get", "cpkg", "demo", code=1)


def test_runs_are_fired_replayed_and_cancelled(deployed: Person) -> None:
    person = deployed
    name = person("fire", "demo-inbox", "--key", "a", "--context", '{"n": 2}').split()[0].rpartition("/")[2]
    assert "deduplicated by run" in person("fire", "demo-inbox", "--key", "a")
    again = person("replay", name).split()[0].rpartition("/")[2]
    by_hand = person("run", "package/demo").split()[0].rpartition("/")[2]
    assert "cancelled" in person("cancel", by_hand)
    assert set(person("get", "crun", "-o", "name").split()) == {
        f"workflowrun.cloacina.io/{run}" for run in (name, again, by_hand)
    }
    assert "has no poll on record yet" in person("history", "demo-inbox")
    run = person.store(lambda store: store.get(WorkflowRun, again, person.namespace))
    assert run is not None
    assert (run.spec.replay_of, run.spec.context, run.status.phase) == (name, {"n": 2}, RunPhase.PENDING)


def test_objects_are_applied_and_all_faults_are_told_before(person: Person, tmp_path: Path) -> None:
    (tmp_path / "package.yaml").write_text(
        "apiVersion: cloacina.io/v1alpha1\nkind: CloacinaPackage\nmetadata: {name: by-hand}\n"
        "spec: {source: {configMap: {name: shipped}}}\n"
    )
    (tmp_path / "trigger.yaml").write_text(
        "apiVersion: cloacina.io/v1alpha1\nkind: Trigger\nmetadata: {name: t}\n"
        "spec: {packageRef: {name: absent}, name: tick}\n"
    )
    assert "absent" in person("apply", "-f", "package.yaml", "-f", "trigger.yaml", code=1)
    assert person("apply", "-f", "package.yaml") == "cloacinapackage.cloacina.io/by-hand created\n"
    assert person("apply", "-f", "package.yaml") == "cloacinapackage.cloacina.io/by-hand unchanged\n"


def test_a_trigger_is_polled_with_the_archive_that_its_pods_mount(deployed: Person) -> None:
    person = deployed
    assert "is not in the store: deploy the package again" in person("poll", "demo-inbox", code=1)
    package = person.store(lambda store: store.get(CloacinaPackage, "demo", person.namespace))
    assert package is not None
    for part in package_parts("demo", package.metadata.uid, person.namespace, DATA):
        person.plane.kubectl("create", "-f", "-", document=part)

    said = json.loads(person("poll", "demo-inbox", "-o", "json"))

    assert [(fire["key"], fire["verdict"]) for fire in said["fires"]] == [("once", "would fire")]


def test_the_place_is_said_in_one_of_four_ways_and_a_home_is_what_is_meant_otherwise(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (("--kubernetes",), ("--kube-context", "test"), ("--kubeconfig", str(person.kubeconfig))):
        assert person("get", "cpkg", place=place) == ""
    assert "nothing was ever deployed in the home" in person("get", "cpkg", place=(), code=1)
    monkeypatch.setenv("CLOACINA_KUBE_CONTEXT", "test")
    assert person("get", "cpkg", place=()) == ""
    assert "nothing was ever deployed in the home" in person("get", "cpkg", "--home", "elsewhere", place=(), code=1)
    assert "give one or the other" in person("get", "cpkg", "--home", "elsewhere", code=1)
    assert "contexts has no 'nope', but test" in person("get", "cpkg", place=("--kube-context", "nope"), code=1)
    assert "works on this machine" in person("check", ".", code=1)


def test_what_a_person_may_not_do_is_told_in_a_sentence(person: Person) -> None:
    said = person("get", "cpkg", "-n", "kube-system", code=1)
    assert f'User "person-of-{person.namespace}" cannot list resource "cloacinapackages"' in said
    assert said.count("\n") == 1
    assert "cannot list" in person("get", "cpkg", "-A", code=1)


class Kubelet:
    """Answers what an API server asks a node for: the logs of its pods."""

    def __init__(self, pki: Path) -> None:
        self._pki = pki
        self.texts: dict[str, list[str]] = {}

    async def logs(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        lines = self.texts[request.match_info["pod"]]
        for line in lines[-int(request.query.get("tailLines", len(lines))) :]:
            await response.write(f"{line}\n".encode())
        return response

    async def serve(self) -> tuple[web.AppRunner, int]:
        certificates.issue(self._pki, "kubelet", "/CN=kubelet")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self._pki / "kubelet.crt", self._pki / "kubelet.key")
        application = web.Application()
        application.router.add_get("/containerLogs/{namespace}/{pod}/main", self.logs)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        return runner, runner.addresses[0][1]


async def test_logs_come_from_the_pods_of_a_run(deployed: Person) -> None:
    person, kubelet = deployed, Kubelet(deployed.plane.folder / "pki")
    name = (await asyncio.to_thread(person, "run", "package/demo")).split()[0].rpartition("/")[2]
    assert "has no log: it has no pod" in await asyncio.to_thread(person, "logs", name, code=1)
    runner, port = await kubelet.serve()
    try:
        node = await asyncio.to_thread(a_node, person, port)
        for attempt in (1, 2):
            pod = f"{name}-{attempt}"
            kubelet.texts[pod] = [f"line {line} of attempt {attempt}" for line in (1, 2)]
            await asyncio.to_thread(a_pod, person, name, pod, node)

        said = await asyncio.to_thread(person, "logs", name)
        assert said.splitlines() == [f"line {line} of attempt {attempt}" for attempt in (1, 2) for line in (1, 2)]
        assert await asyncio.to_thread(person, "logs", name, "--tail", "1") == "line 2 of attempt 2\n"
        await asyncio.to_thread(ended, person, name)
        assert await asyncio.to_thread(person, "logs", name, "-f") == said
    finally:
        await asyncio.to_thread(person.plane.kubectl, "delete", "node", f"node-{person.namespace}")
        await runner.cleanup()


def ended(person: Person, run: str) -> None:
    async def work(store: Store) -> None:
        seen = await store.get(WorkflowRun, run, person.namespace)
        assert seen is not None
        await store.write_status(seen.with_status(phase=RunPhase.COMPLETED))

    person.store(work)


def a_node(person: Person, port: int) -> str:
    """A node of which the API server thinks that it is at that port."""
    name = f"node-{person.namespace}"
    person.plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    patch = json.dumps({"status": status})
    person.plane.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)
    return name


def a_pod(person: Person, run: str, name: str, node: str) -> None:
    labels = {"cloacina.io/run": run, "cloacina.io/component": "run", "cloacina.io/package": "demo"}
    spec = {"nodeName": node, "containers": [{"name": "main", "image": "i"}]}
    metadata = {"name": name, "namespace": person.namespace, "labels": labels}
    person.plane.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
