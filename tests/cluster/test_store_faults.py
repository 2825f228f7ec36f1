"""The store when its API server misbehaves, each fault made for real: refusals, silence, compaction, a restart."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster.control_plane import ControlPlane
from cluster.proxy import proxied

from cloaca.errors import AlreadyExists, Forbidden, StoreUnavailable
from cloaca.resources import CloacinaPackage, ObjectMeta, RunSpec, Trigger, WorkflowRun
from cloaca.resources.ref import Ref
from cloaca.resources.trigger import PackageReference
from cloaca.store import open_store
from cloaca.store.kubernetes import api as client
from cloaca.store.kubernetes.feed import Key, Reflector
from cloaca.store.kubernetes.store import KubernetesStore

PATIENCE = 60.0


@pytest.fixture
async def store(control_plane: ControlPlane, namespace: str) -> AsyncIterator[KubernetesStore]:
    made = await opened(control_plane.kubeconfig, namespace)
    yield made
    await made.close()


@pytest.fixture
def own(control_plane: ControlPlane) -> ControlPlane:
    """One that may be stopped."""
    if not control_plane.processes:
        pytest.skip("it stops the API server, and this one is somebody else's")
    return control_plane


async def opened(kubeconfig: Path, namespace: str, **options: str) -> KubernetesStore:
    more = "".join(f"&{name}={value}" for name, value in options.items())
    store = await open_store(f"kubernetes://{kubeconfig}?namespace={namespace}{more}")
    assert isinstance(store, KubernetesStore)
    return store


def run(name: str, namespace: str) -> WorkflowRun:
    spec = RunSpec(workflow="w", package_ref=PackageReference(name="demo"))
    return WorkflowRun(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec)


async def until(what: Any) -> Any:
    """What ``what`` gives, once it is true."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await what()):
            await asyncio.sleep(0.02)
    return found


# --- watches


async def test_a_watch_that_the_server_has_no_past_for_is_begun_anew_and_nothing_is_missed(
    own: ControlPlane, store: KubernetesStore, namespace: str
) -> None:
    """410 Gone: a server that was started again remembers no change from before its start."""
    stays, goes = await store.create(run("stays", namespace)), await store.create(run("goes", namespace))
    cached = await opened(own.kubeconfig, namespace, cached="true")
    try:
        async with cached.changes() as changes:
            await silent(cached)
            await store.delete(goes.ref)
            await store.create(run("new", namespace))
            await store.update(stays.with_metadata(labels={"a": "b"}))
            own.stop("kube-apiserver")
            own.start("kube-apiserver")
            resume(cached)

            told: dict[str, bool] = {}
            async with asyncio.timeout(PATIENCE):
                async for change in changes:
                    told[change.ref.name] = change.deleted
                    if len(told) == 3:
                        break
        assert told == {"stays": False, "goes": True, "new": False}
        assert [one.name for one in await cached.list(WorkflowRun, namespace)] == ["new", "stays"]
        assert ("GET", "workflowruns") in cached.api.requests
        assert cached.api.requests[("GET", "workflowruns")] >= 2, "it was not listed anew"
    finally:
        await cached.close()


async def test_a_list_whose_past_is_gone_between_two_pages_is_begun_anew(
    own: ControlPlane, store: KubernetesStore, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """410 Gone for a continue token: etcd was compacted beyond the first page, and the API server, which
    keeps snapshots of its own, was started again."""
    monkeypatch.setattr(client, "PAGE", 2)
    made = [await store.create(run(f"run-{number}", namespace)) for number in range(5)]
    seen: dict[str, str] = {}
    compacted: list[int] = []

    def saw(key: Key, obj: client.Object, gone: bool) -> None:
        if gone:
            del seen[key[1]]
            return
        seen[key[1]] = obj["metadata"]["resourceVersion"]
        if not compacted:
            own.kubectl("delete", "workflowrun", "run-4", "-n", namespace)
            own.kubectl("label", "workflowrun", "run-0", "-n", namespace, "a=b")
            compacted.append(compact(own))
            own.stop("kube-apiserver")
            own.start("kube-apiserver")

    reflector = Reflector(store.api, f"/apis/cloacina.io/v1alpha1/namespaces/{namespace}/workflowruns", saw)
    await reflector.load()

    fresh = await store.list(WorkflowRun, namespace)
    assert seen == {one.name: one.metadata.resource_version for one in fresh}
    assert sorted(seen) == ["run-0", "run-1", "run-2", "run-3"]
    assert seen["run-0"] != made[0].metadata.resource_version
    assert compacted


def compact(plane: ControlPlane) -> int:
    """Have etcd forget its past up to now; returns the revision."""
    url = next(word.partition("=")[2] for word in plane.commands["etcd"] if word.startswith("--advertise-client-urls"))

    def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
        with urllib.request.urlopen(f"{url}/v3/kv/{path}", data=json.dumps(body).encode(), timeout=30) as answer:
            return dict(json.load(answer))

    revision = int(ask("range", {"key": "AA=="})["header"]["revision"])
    ask("compaction", {"revision": str(revision), "physical": True})
    return revision


async def silent(store: KubernetesStore) -> None:
    """Have the store follow nothing for a while, as when its process is stopped."""
    for task in store._following:
        task.cancel()
    await asyncio.wait(store._following)


def resume(store: KubernetesStore) -> None:
    store._following = [asyncio.ensure_future(reflector.run()) for reflector in store._reflectors]


async def test_a_watch_whose_connection_died_without_a_word_is_begun_anew(
    store: KubernetesStore, control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(control_plane.kubeconfig, tmp_path) as (proxy, kubeconfig):
        monkeypatch.setattr(client, "TIMEOUT", 2.0)
        monkeypatch.setattr(client, "SILENCE", 1)
        cached = await opened(kubeconfig, namespace, cached="true")
        try:
            heard = cached.heard_at
            proxy.silence()
            await store.create(run("after", namespace))

            await until(lambda: cached.get(WorkflowRun, "after", namespace))

            await until(lambda: asyncio.sleep(0, cached.heard_at > heard))  # of every kind
        finally:
            await cached.close()


# --- refusals


async def test_what_we_may_not_do_is_said_so(control_plane: ControlPlane, namespace: str) -> None:
    """403."""
    nobody = control_plane.kubeconfig_of_user(f"nobody-{namespace}", namespace=namespace)
    store = await opened(nobody, namespace)
    for attempt in (
        store.list(CloacinaPackage, namespace),
        store.get(Trigger, "any", namespace),
        store.create(run("any", namespace)),
        store.delete(Ref(WorkflowRun.KIND, namespace, "any")),
    ):
        with pytest.raises(Forbidden, match=f'User "nobody-{namespace}" cannot'):
            await attempt
    await store.close()
    with pytest.raises(Forbidden):
        await opened(nobody, namespace, cached="true")


async def test_a_busy_server_is_asked_again_when_it_says_so(control_plane: ControlPlane, namespace: str) -> None:
    """429 with Retry-After, from the server's own fairness: it serves one request of a user at a time."""
    user, at_once = f"many-{namespace}", 4  # as many as there are tries: of those that come together one is served
    bound = ("--clusterrole=cluster-admin", f"--user={user}")
    control_plane.kubectl("create", "rolebinding", "many", "-n", namespace, *bound)
    store = await opened(control_plane.kubeconfig_of_user(user, namespace=namespace), namespace)
    control_plane.apply(*no_seat(user))
    try:
        made = 0
        async with asyncio.timeout(PATIENCE):
            while store.api.requests[("POST", "workflowruns")] == made:  # nobody was refused yet
                names = [f"run-{made + number}" for number in range(at_once)]
                await asyncio.gather(*(store.create(run(name, namespace)) for name in names))
                made += at_once
        assert len(await store.list(WorkflowRun, namespace)) == made
    finally:
        control_plane.kubectl("delete", "flowschema,prioritylevelconfiguration", user, "--ignore-not-found")
        await store.close()


def no_seat(user: str) -> list[dict[str, Any]]:
    limited = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}
    subject = {"kind": "User", "user": {"name": user}}
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    api = "flowcontrol.apiserver.k8s.io/v1"
    return [
        {
            "apiVersion": api,
            "kind": "PriorityLevelConfiguration",
            "metadata": {"name": user},
            "spec": {"type": "Limited", "limited": {**limited, "borrowingLimitPercent": 0}},
        },
        {
            "apiVersion": api,
            "kind": "FlowSchema",
            "metadata": {"name": user},
            "spec": {
                "priorityLevelConfiguration": {"name": user},
                "matchingPrecedence": 2,
                "rules": [{"subjects": [subject], "resourceRules": [everything]}],
            },
        },
    ]


# --- a restart


async def test_what_is_written_during_a_restart_is_there_once(
    own: ControlPlane, store: KubernetesStore, namespace: str
) -> None:
    names = [f"run-{number}" for number in range(60)]
    uids: dict[str, str] = {}
    away: list[str] = []

    async def write(name: str) -> None:
        while name not in uids:
            try:
                uids[name] = (await store.create(run(name, namespace))).metadata.uid
            except AlreadyExists:  # the try before was taken, and its answer got lost
                found = await store.get(WorkflowRun, name, namespace)
                assert found is not None
                uids[name] = found.metadata.uid
            except StoreUnavailable:
                away.append(name)
                await asyncio.sleep(0.1)

    async def some(part: list[str]) -> None:
        for name in part:
            await write(name)

    writing = [asyncio.ensure_future(some(names[start::6])) for start in range(6)]
    await until(lambda: asyncio.sleep(0, len(uids) >= 6))
    own.stop("kube-apiserver")
    await until(lambda: asyncio.sleep(0, away))
    own.start("kube-apiserver")
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*writing)

    found = {one.name: one.metadata.uid for one in await store.list(WorkflowRun, namespace)}
    assert found == uids
