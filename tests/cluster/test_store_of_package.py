"""A store that keeps what is of one package in memory, on a real API server: it misses nothing, and keeps no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cloacina_operator.shell.ledgers import Ledgers
from cluster.control_plane import ControlPlane

from cloaca.errors import AlreadyExists
from cloaca.resources import CloacinaPackage, ObjectMeta, RunSpec, Trigger, TriggerLedger, TriggerSpec, WorkflowRun
from cloaca.resources.meta import Ref
from cloaca.resources.names import key_hash
from cloaca.resources.package import PackageSource, PackageSpec
from cloaca.resources.run import TriggerReference
from cloaca.resources.trigger import PackageReference
from cloaca.store import Store, open_store
from cloaca.store.kubernetes.feed import Key, Reflector
from cloaca.store.kubernetes.store import KubernetesStore

PATIENCE = 60.0


@pytest.fixture
async def everything(control_plane: ControlPlane, namespace: str) -> AsyncIterator[KubernetesStore]:
    """A store of the whole namespace."""
    store = await opened(control_plane, namespace, "")
    yield store
    await store.close()


async def opened(plane: ControlPlane, namespace: str, options: str) -> KubernetesStore:
    store = await open_store(f"kubernetes://{plane.kubeconfig}?namespace={namespace}{options}")
    assert isinstance(store, KubernetesStore)
    return store


def run(name: str, namespace: str, package: str, by: Trigger | None = None) -> WorkflowRun:
    """As a person writes one: without labels."""
    trigger = None if by is None else TriggerReference(name=by.name, uid=by.metadata.uid)
    spec = RunSpec(workflow="w", package_ref=PackageReference(name=package), trigger_ref=trigger)
    return WorkflowRun(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec)


async def package_with_trigger(store: Store, namespace: str, name: str) -> Trigger:
    """As a person applies them; with a key in the trigger's ledger, as the operator enters it."""
    source = PackageSource(url="https://127.0.0.1:1/demo.cloacina")
    await store.create(
        CloacinaPackage(metadata=ObjectMeta(name=name, namespace=namespace), spec=PackageSpec(source=source))
    )
    spec = TriggerSpec(package_ref=PackageReference(name=name), name="inbox")
    made = await store.create(Trigger(metadata=ObjectMeta(name=f"{name}-inbox", namespace=namespace), spec=spec))
    by = TriggerReference(name=made.name, uid=made.metadata.uid)
    await Ledgers(store).enter(by, namespace, [f"key of {name}"], name)
    return made


async def kept(store: Store, namespace: str) -> dict[str, list[str]]:
    kinds: tuple[Any, ...] = (CloacinaPackage, Trigger, WorkflowRun)
    return {kind.KIND: [one.name for one in await store.list(kind, namespace)] for kind in kinds}


async def test_it_keeps_and_tells_what_is_of_its_package_with_labels_or_without(
    control_plane: ControlPlane, namespace: str, everything: KubernetesStore
) -> None:
    mine = await package_with_trigger(everything, namespace, "demo")
    theirs = await package_with_trigger(everything, namespace, "other")
    await everything.create(run("before", namespace, "demo", mine))
    await everything.create(run("foreign", namespace, "other", theirs))
    store = await opened(control_plane, namespace, "&cached=true&package=demo")
    try:
        async with store.changes() as changes:
            seen = await kept(store, namespace)
            (ledger,) = await store.list(TriggerLedger, namespace)
            await everything.create(run("foreign-2", namespace, "other", theirs))
            await everything.write_status(theirs.with_status(sequence=7))
            await everything.delete(Ref(WorkflowRun.KIND, namespace, "before"))
            await everything.create(run("after", namespace, "demo"))
            told = []
            async with asyncio.timeout(PATIENCE):
                async for change in changes:
                    told.append((change.ref.name, change.deleted))
                    if change.ref.name == "after":
                        break
        assert seen == {"CloacinaPackage": ["demo"], "Trigger": ["demo-inbox"], "WorkflowRun": ["before"]}
        assert ledger.spec.keys == (key_hash(mine.metadata.uid, "key of demo"),)
        assert sorted(told) == [("after", False), ("before", True)]
        assert await kept(store, namespace) == {**seen, "WorkflowRun": ["after"]}
    finally:
        await store.close()


async def test_a_name_that_a_run_of_another_package_has_is_known_once_it_is_met(
    control_plane: ControlPlane, namespace: str, everything: KubernetesStore
) -> None:
    """A fire whose name is taken looks at who has it."""
    await everything.create(run("taken", namespace, "other"))
    store = await opened(control_plane, namespace, "&cached=true&package=demo")
    try:
        assert await store.get(WorkflowRun, "taken", namespace) is None
        with pytest.raises(AlreadyExists):
            await store.create(run("taken", namespace, "demo"))
        met = await store.get(WorkflowRun, "taken", namespace)
        assert met is not None
        assert met.spec.package_ref == PackageReference(name="other")
    finally:
        await store.close()


async def test_where_the_server_cannot_select_by_a_field_everything_is_followed(
    namespace: str, everything: KubernetesStore
) -> None:
    """As before Kubernetes 1.31."""
    await everything.create(run("one", namespace, "demo"))
    seen: list[str] = []

    def saw(key: Key, _obj: Any, _gone: bool) -> None:
        seen.append(key[1])

    path = f"/apis/cloacina.io/v1alpha1/namespaces/{namespace}/workflowruns"
    reflector = Reflector(everything.api, path, saw, narrowing={"fieldSelector": "spec.workflow=w"})
    await reflector.load()
    following = asyncio.ensure_future(reflector.run())
    try:
        await everything.create(run("two", namespace, "other"))
        await until(lambda: "two" in seen)
    finally:
        following.cancel()
        await asyncio.wait({following})
    assert seen == ["one", "two"]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.02)
