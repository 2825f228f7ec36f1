"""What a cluster costs: fire to task beside a bare Job, 1,000 runs at once, memory and restart with 13,000 objects.

On clusters of the tests' own: a real node (root), and a control plane on the loopback. What cannot be had is not
measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "operator"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builders import WORKFLOW, archive, declared
from cloacina_operator.core import manifests
from cluster import binaries
from cluster.chart.helm_binary import HelmMissing, built_helm
from cluster.control_plane import ControlPlane, control_plane
from cluster.node import images
from cluster.node.node import real_node
from cluster.release import Release
from cluster.story.scene import NAMESPACE, SYSTEM, Scene
from cluster.story.stage import DATA, staged

from cloaca.resources import CloacinaPackage, ObjectMeta, RunPhase, WorkflowRun
from cloaca.resources.package import (
    ActivePackage,
    ConfigMapSource,
    PackageSource,
    PackageSpec,
    TaskEntry,
    TriggerEntry,
    WorkflowEntry,
)
from cloaca.resources.run import RunSpec
from cloaca.resources.trigger import PackageReference
from cloaca.store import Store, open_store
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.archives import digest_of, package_parts
from cloaca.store.kubernetes.config import find_server, parse_url
from cloaca.store.kubernetes.store import KubernetesStore

FIRES = 12
AT_ONCE = 1_000
PACKAGES, TRIGGERS_EACH, RUNS_EACH = 1_000, 2, 10
QUIET = 10.0  # seconds without a request
SETTLING = 150.0  # seconds after which a Deployment whose pods find no node has said so

CODE = """
import os, time
import cloaca

def born():
    with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
        ticks = int(stat.read().rpartition(")")[2].split()[19])
        return time.time() - float(uptime.read().split()[0]) + ticks / os.sysconf("SC_CLK_TCK")

imported = time.time()

with cloaca.WorkflowBuilder("timed") as builder:
    @cloaca.task(id="only")
    def only(context):
        context.set("started", time.time())
        context.set("imported", imported)
        context.set("born", born())

@cloaca.trigger(name="inbox", poll_interval="100ms", allow_concurrent=True)
def inbox():
    return [cloaca.TriggerResult.fire({"fired": time.time()}, key=name) for name in os.listdir("/data/inbox")]
"""


# --- a real node


def on_a_node(folder: Path) -> dict[str, float]:
    """Fires and bare Jobs of the same image, one after the other, and what the fires asked of the API server."""
    with real_node(folder) as node:
        scene = staged(Scene(plane=node.plane, node=node, image=images.TAG, helm_program=built_helm()))
        scene.shell("mkdir -p inbox && chmod 777 inbox")
        packed = archive(
            CODE, name="timed", triggers=[declared("inbox", "timed", poll_interval="100ms", allow_concurrent=True)]
        )
        scene.deploy("timed", packed, "1.0.0", podTemplate={"spec": DATA})
        scene.await_version("timed", "1.0.0")
        phases: list[dict[str, float]] = []
        bare: dict[str, list[float]] = {"bare": [], "without_volumes": [], "same_pod": []}
        before = asked(folder)
        for number in range(FIRES):
            name = scene.run_of(f"file-{number}", "timed")  # asked before: a kubectl beside the run would slow it down
            scene.bring(f"file-{number}")
            run = scene.await_run(name)
            scene.shell("rm inbox/*")  # the poller looks up each key that it meets again
            phases.append(_phases(Requests.read(folder), run))
            same = scene.get(f"job/{run['metadata']['name']}")["spec"]["template"]["spec"]
            for kind, pod in (("bare", _pod(scene)), ("without_volumes", _pod(scene) | _NO_TOKEN), ("same_pod", same)):
                bare[kind].append(_bare(scene, folder, f"{kind.replace('_', '-')}-{number}", pod))
        requests = {key: count - before[key] for key, count in asked(folder).items()}
        scene.kubectl("delete", "cpkg/timed", "--wait=false")
        began = time.monotonic()
        scene.until("the package to go", lambda: not scene.left_of("timed"))
        gone = time.monotonic() - began
    for (who, verb, resource), count in sorted(requests.items()):
        print(f"{who} {verb} {resource}: {count / FIRES:.2f} a run")
    median = {kind: statistics.median(seconds) for kind, seconds in bare.items()}
    ours = statistics.median(sum(one.values()) for one in phases)
    figures = {
        "cluster_fire_to_first_task_ms": ours * 1000,
        **{f"cluster_{kind}_job_ms": seconds * 1000 for kind, seconds in median.items()},
        **{f"cluster_fire_over_{kind}_job": ours / seconds for kind, seconds in median.items()},
        **{f"cluster_phase_{name}_ms": statistics.median(one[name] for one in phases) * 1000 for name in phases[0]},
        "cluster_requests_per_run": sum(requests.values()) / FIRES,
        "cluster_package_gone_s": gone,
    }
    return _told(figures)


class Requests:
    """What was asked of the API server, and when."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self._events = events

    @classmethod
    def read(cls, folder: Path) -> Requests:
        """All so far."""
        return cls([json.loads(line) for line in (folder / "audit.log").read_text().splitlines()])

    def first(self, verb: str, resource: str, name: str) -> float:
        """When it was first asked for; of an object whose name begins with ``name``. Raises LookupError."""
        for event in self._events:
            about = event.get("objectRef", {})
            what = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
            asked = (event["verb"], what) == (verb, resource) and about.get("name", "").startswith(name)
            if asked:
                return datetime.fromisoformat(event["requestReceivedTimestamp"].replace("Z", "+00:00")).timestamp()
        raise LookupError(f"nobody asked to {verb} {resource} {name}")


def _phases(requests: Requests, run: dict[str, Any]) -> dict[str, float]:
    """Where the seconds between a fire and its first task went, in order; together they are all of it."""
    name, context = run["metadata"]["name"], run["status"]["context"]
    moments = {
        "poller": requests.first("create", "workflowruns", name),  # from what the function found to its run
        "operator": requests.first("create", "jobs", name),
        "scheduled": requests.first("create", "pods/binding", f"{name}-"),
        "started": context["born"],  # by kubelet and containerd: volumes, sandbox, container
        "imported": context["imported"],  # Python, our part of it, and the package; meanwhile the run is read
        "claimed": requests.first("patch", "workflowruns/status", name),
        "task": context["started"],
    }
    before = [context["fired"], *moments.values()]
    return {phase: moment - began for (phase, moment), began in zip(moments.items(), before, strict=False)}


_NO_TOKEN = {"automountServiceAccountToken": False}


def _pod(scene: Scene) -> dict[str, Any]:
    """A pod as anybody's Job has one: with a service account's token, and no other volume."""
    main = {
        "name": "main",
        "image": scene.image,
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [main],
    }


def _bare(scene: Scene, folder: Path, name: str, pod: dict[str, Any]) -> float:
    """Seconds from the request that makes a Job of such a pod to the first instruction in it."""
    (main,) = pod["containers"]
    tells = {**{key: value for key, value in main.items() if key != "args"}, "command": ["date", "+%s.%N"]}
    spec = {"backoffLimit": 0, "template": {"spec": {**pod, "containers": [tells]}}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
    scene.kubectl("create", "-f", "-", document=job)
    scene.wait(f"job/{name}", "condition=Complete")
    first = float(scene.kubectl("logs", f"job/{name}"))
    return first - Requests.read(folder).first("create", "jobs", name)


def asked(folder: Path) -> Counter[tuple[str, str, str]]:
    """Requests so far of the operator, pollers and runs: who, verb, resource. Watches and the Lease are no run's."""
    accounts = {
        f"system:serviceaccount:{SYSTEM}:cloacina-operator": "operator",
        f"system:serviceaccount:{NAMESPACE}:cloacina-poller": "poller",
        f"system:serviceaccount:{NAMESPACE}:cloacina-run": "run",
    }
    found: Counter[tuple[str, str, str]] = Counter()
    for line in (folder / "audit.log").read_text().splitlines():
        event = json.loads(line)
        who, about = accounts.get(event["user"]["username"]), event.get("objectRef", {})
        if who is not None and event["verb"] != "watch" and about.get("resource") != "leases":
            found[(who, event["verb"], "/".join(filter(None, (about.get("resource"), about.get("subresource")))))] += 1
    return found


# --- a control plane


class Operator:
    """An operator as a process, with the rights and settings that the chart gives it."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace
        plane.namespace(namespace)
        self.release = Release.render(built_helm(), plane, namespace)
        self.release.install()

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Until the end of the block; killed then."""
        settings = {
            **self.release.environment,
            "KUBECONFIG": str(self.release.kubeconfig("operator")),
            "CLOACINA_POD_NAMESPACE": self.namespace,
            "CLOACINA_POD": "one",
            "CLOACINA_PORT": str(_free_port()),
            "CLOACINA_LEASE": "-",
            "CLOACINA_MAX_RUNS": "5000",
        }
        with (self.plane.folder / "operator.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cloacina_operator.hosts.kopf_app"],
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def quiet_at(self, since: float) -> float:
        """The time (of the clock) of its last request ``since`` then, once it has asked for nothing for a while."""
        last = 0.0
        while last <= since or time.time() - last < QUIET:
            time.sleep(1.0)
            last = self._last_request()
        return last

    def _last_request(self) -> float:
        last = 0.0
        with (self.plane.folder / "audit.log").open() as lines:
            for line in lines:
                whole = line.endswith("\n")  # the last one may be half written
                if whole and self.release.user in line and '"verb":"watch"' not in line:
                    at = json.loads(line)["requestReceivedTimestamp"].replace("Z", "+00:00")
                    last = max(last, datetime.fromisoformat(at).timestamp())
        return last


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def on_a_control_plane(folder: Path) -> dict[str, float]:
    """Many objects: no node, so pods stay Pending."""
    programs = binaries.find(*binaries.CONTROL_PLANE)
    with control_plane(programs, folder) as plane:
        plane.install_crds()
        return {**asyncio.run(_at_once(plane)), **asyncio.run(_many(plane))}


async def _at_once(plane: ControlPlane) -> dict[str, float]:
    operator = Operator(plane, "at-once")
    api = Api(find_server(parse_url(f"kubernetes://{plane.kubeconfig}"), {}))
    store = await open_store(f"kubernetes://{plane.kubeconfig}?namespace=at-once")
    try:
        package = await _package(store, "demo", "at-once", archive(WORKFLOW), ())
        owner = await _run(store, "owner", package, finished=True)
        path, digest = (
            "/apis/batch/v1/namespaces/at-once/jobs",
            str(package.status.active and package.status.active.digest),
        )
        settings = manifests.PodSettings(image="cloacina:test")
        began = time.monotonic()
        for number in range(AT_ONCE):
            job = manifests.run_job(owner, package, digest, 1, 1, settings, datetime.now(timezone.utc))
            job["metadata"]["name"] = f"bare-{number}"
            await api.request("POST", path, body=job, params={"fieldValidation": "Strict"})
        loop = time.monotonic() - began
        await store.delete(owner.ref)
        while await _count(api, path):
            await asyncio.sleep(0.5)
        started = time.time()
        with operator.running():
            operator.quiet_at(started)
            began = time.monotonic()
            await _all(_run(store, f"run-{number}", package, finished=False) for number in range(AT_ONCE))
            created = time.monotonic() - began
            while await _count(api, path) < AT_ONCE:
                await asyncio.sleep(0.05)
            ours = time.monotonic() - began
    finally:
        await store.close()
        await api.close()
    return _told(
        {
            "cluster_plain_loop_jobs_per_s": AT_ONCE / loop,
            "cluster_runs_created_per_s": AT_ONCE / created,
            "cluster_jobs_of_runs_per_s": AT_ONCE / ours,
            "cluster_jobs_over_plain_loop": loop / ours,
        }
    )


async def _many(plane: ControlPlane) -> dict[str, float]:
    operator = Operator(plane, "many")
    store = await open_store(f"kubernetes://{plane.kubeconfig}?namespace=many")
    names = tuple(f"t{number}" for number in range(TRIGGERS_EACH))
    data = archive(WORKFLOW, triggers=[declared(name) for name in names])
    (plane.folder / "demo.cloacina").write_bytes(data)
    source = f"--from-file=package.cloacina={plane.folder / 'demo.cloacina'}"
    plane.kubectl("create", "configmap", "shipped", "-n", "many", source)
    try:
        packages = await _all(_package(store, f"p{number}", "many", data, names) for number in range(PACKAGES))
        await _all(_run(store, f"{p.name}-{n}", p, finished=True) for p in packages for n in range(RUNS_EACH))
        began_at = time.time()
        with operator.running():
            while time.time() - began_at < SETTLING:
                operator.quiet_at(began_at)
        began_at = time.time()
        with operator.running() as process:
            quiet = operator.quiet_at(began_at) - began_at
            memory = _memory(process.pid)
    finally:
        await store.close()
    return _told(
        {
            "cluster_restart_to_quiet_s": quiet,
            "cluster_operator_resident_mb": memory["VmRSS"],
            "cluster_operator_peak_mb": memory["VmHWM"],
        }
    )


def _memory(pid: int) -> dict[str, float]:
    """Megabytes, by the kernel's names."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    words = (line.split() for line in lines if line.startswith(("VmRSS", "VmHWM")))
    return {name.rstrip(":"): int(size) * 1024 / 1e6 for name, size, _ in words}


async def _package(store: Store, name: str, namespace: str, data: bytes, triggers: tuple[str, ...]) -> CloacinaPackage:
    """One whose archive was accepted before."""
    digest = digest_of(data)
    source = PackageSource(config_map=ConfigMapSource(name="shipped"))
    made = await store.create(
        CloacinaPackage(metadata=ObjectMeta(name=name, namespace=namespace), spec=PackageSpec(source=source))
    )
    assert isinstance(store, KubernetesStore)
    for part in package_parts(name, made.metadata.uid, namespace, data):
        await store.api.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body=part)
    return await store.write_status(
        made.with_status(
            active=ActivePackage(digest=digest, version="1.0.0", since=datetime.now(timezone.utc)),
            workflows=(WorkflowEntry(name="demo", tasks=("only",)),),
            tasks=(TaskEntry(id="only"),),
            triggers=tuple(TriggerEntry(name=trigger, workflow="demo", poll_interval="5s") for trigger in triggers),
        )
    )


async def _run(store: Store, name: str, package: CloacinaPackage, *, finished: bool) -> WorkflowRun:
    """A run by hand."""
    metadata = ObjectMeta(name=name, namespace=package.metadata.namespace)
    spec = RunSpec(workflow="demo", package_ref=PackageReference(name=package.name))
    made = await store.create(WorkflowRun(metadata=metadata, spec=spec))
    if not finished:
        return made
    now = datetime.now(timezone.utc)
    return await store.write_status(
        made.with_status(phase=RunPhase.COMPLETED, attempt=1, started_at=now, finished_at=now, context={"done": True})
    )


async def _all(work: Iterable[Awaitable[Any]], at_once: int = 20) -> list[Any]:
    """All of it, some at once; results in order."""
    slots = asyncio.Semaphore(at_once)

    async def one(thing: Awaitable[Any]) -> Any:
        async with slots:
            return await thing

    return list(await asyncio.gather(*map(one, work)))


async def _count(api: Api, path: str) -> int:
    """How many there are, without their contents."""
    found = await api.request("GET", path, params={"limit": "1"})
    return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))


def _told(figures: dict[str, float]) -> dict[str, float]:
    for name, value in figures.items():
        print(f"{name}: {value:.4g}", flush=True)
    return figures


def main() -> dict[str, float]:
    """The figures that can be had here."""
    figures: dict[str, float] = {}
    for measure in (on_a_node, on_a_control_plane):
        with tempfile.TemporaryDirectory(prefix="cloacina-bench-") as folder:
            try:
                figures |= measure(Path(folder))
            except (binaries.Unavailable, HelmMissing) as error:
                print(f"not measured: {error}", flush=True)
    return figures


if __name__ == "__main__":
    main()
