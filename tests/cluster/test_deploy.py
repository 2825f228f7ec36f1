"""``cloaca deploy`` on a real API server: whole at every point at which it may be killed, and nothing left behind."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from builders import WORKFLOW, archive
from cluster.control_plane import ControlPlane

from cloaca.cli.deploy import shipped
from cloaca.errors import CloacaError, NotFound
from cloaca.resources import CloacinaPackage, owned_by
from cloaca.store import open_store
from cloaca.store.kubernetes.archives import digest_of, source_part
from cloaca.store.kubernetes.shipped import LEFT_OVER, Shipment
from cloaca.store.kubernetes.store import KubernetesStore


def of_size(version: str, kilobytes: int = 0) -> bytes:
    """An archive that does not compress below ``kilobytes``."""
    noise = random.Random(version).randbytes(kilobytes * 1024).hex()
    return archive(f"{WORKFLOW}\nNOISE = {noise!r}\n", version=version)


SMALL, LARGE = of_size("1.0.0"), of_size("2.0.0", 1_300)


@pytest.fixture
async def store(control_plane: ControlPlane, namespace: str) -> AsyncIterator[KubernetesStore]:
    made = await open_store(f"kubernetes://{control_plane.kubeconfig}?namespace={namespace}")
    assert isinstance(made, KubernetesStore)
    yield made
    await made.close()


def shipment(data: bytes, namespace: str) -> Shipment:
    return Shipment(package="demo", namespace=namespace, digest=digest_of(data), data=data)


async def named(store: KubernetesStore, namespace: str) -> bytes | None:
    """What the operator gets from the source that the package names; None: there is no package."""
    package = await store.get(CloacinaPackage, "demo", namespace)
    if package is None:
        return None
    source = package.spec.source.config_map
    assert source is not None
    data, path = b"", f"/api/v1/namespaces/{namespace}/configmaps"
    with suppress(NotFound):  # as the inspection's volume has it: one part after the other, while there are any
        for number in itertools.count():
            part = await store.api.request("GET", f"{path}/{source_part(source.name, number)}")
            data += base64.b64decode(part["binaryData"][source.key])
    assert package.spec.digest == digest_of(data)
    return data


async def parts(store: KubernetesStore, namespace: str) -> dict[str, str]:
    """ConfigMap → the name of its owner."""
    selector = {"labelSelector": "cloacina.io/component=source"}
    items, _ = await store.api.everything(f"/api/v1/namespaces/{namespace}/configmaps", selector)
    return {
        one["metadata"]["name"]: (one["metadata"].get("ownerReferences") or [{"name": "nobody"}])[0]["name"]
        for one in items
    }


async def test_a_package_is_made_then_unchanged_then_has_the_new_archive_and_no_old_part(
    store: KubernetesStore, namespace: str
) -> None:
    large, small = shipment(LARGE, namespace), shipment(SMALL, namespace)
    assert await shipped(large, store) == ("created", 2)
    assert await shipped(large, store) == ("unchanged", 2)
    first = large.source.name
    assert await parts(store, namespace) == {first: "demo", f"{first}-1": "demo"}

    assert await shipped(small, store) == ("configured", 1)

    assert await named(store, namespace) == SMALL
    assert await parts(store, namespace) == {small.source.name: "demo"}


async def test_what_a_person_set_of_the_package_stays(store: KubernetesStore, namespace: str) -> None:
    await shipped(shipment(SMALL, namespace), store)
    package = await store.get(CloacinaPackage, "demo", namespace)
    assert package is not None
    await store.update(package.with_spec(suspend=True, interval="5m").with_metadata(labels={"team": "a"}))

    await shipped(shipment(LARGE, namespace), store)

    package = await store.get(CloacinaPackage, "demo", namespace)
    assert package is not None
    assert (package.spec.suspend, package.spec.interval, package.metadata.labels) == (True, "5m", {"team": "a"})


class Killed(BaseException):
    """The process was."""


def kill(store: KubernetesStore, at: int, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Have the process die at its request number ``at``: before it, or when its answer is on the way."""
    request, count = store.api.request, 0

    async def dying(*words: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == at and not after:
            raise Killed
        try:
            return await request(*words, **options)
        finally:
            if count == at:
                raise Killed

    monkeypatch.setattr(store.api, "request", dying)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("before", [None, LARGE], ids=["first", "update"])
async def test_killed_at_any_request_the_package_names_a_whole_archive_and_the_next_call_completes_it(
    store: KubernetesStore, namespace: str, monkeypatch: pytest.MonkeyPatch, before: bytes | None, after: bool
) -> None:
    wanted = shipment(SMALL if before else LARGE, namespace)
    for at in range(1, 100):
        if before is not None:
            await shipped(shipment(before, namespace), store)
        elif await store.get(CloacinaPackage, "demo", namespace) is not None:
            await remove(store, namespace)
        with monkeypatch.context() as patch:
            kill(store, at, patch, after=after)
            try:
                await shipped(wanted, store)
            except Killed:
                pass
            else:
                assert at > 5, "it came to its end with fewer requests than it can need"
                return

        assert await named(store, namespace) in (before, wanted.data), f"killed at request {at}"
        await shipped(wanted, store)
        assert await named(store, namespace) == wanted.data
        with monkeypatch.context() as patch:  # an hour later
            patch.setattr("cloaca.store.kubernetes.shipped.LEFT_OVER", -LEFT_OVER)
            await shipped(wanted, store)
        left = await parts(store, namespace)
        assert set(left.values()) == {"demo"}
        assert len(left) == (1 if before else 2), f"killed at request {at}, the next one left {left}"
    pytest.fail("it never came to its end")


async def remove(store: KubernetesStore, namespace: str) -> None:
    """The package and its parts, without waiting for the garbage collector."""
    package = await store.get(CloacinaPackage, "demo", namespace)
    assert package is not None
    await store.delete(package.ref)
    for name in await parts(store, namespace):
        with suppress(NotFound):
            await store.api.request("DELETE", f"/api/v1/namespaces/{namespace}/configmaps/{name}")


async def test_a_package_that_is_deployed_again_right_after_its_deletion_keeps_its_parts(
    store: KubernetesStore, namespace: str, control_plane: ControlPlane
) -> None:
    wanted = shipment(LARGE, namespace)
    await shipped(wanted, store)
    package = await store.get(CloacinaPackage, "demo", namespace)
    assert package is not None
    canary = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "canary", "namespace": namespace}}
    canary["metadata"]["ownerReferences"] = [package_reference(package)]
    await store.api.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body=canary)

    await store.delete(package.ref)
    await shipped(wanted, store)

    await asyncio.to_thread(control_plane.kubectl, "wait", "--for=delete", "cm/canary", "-n", namespace)
    assert await named(store, namespace) == LARGE


def package_reference(package: CloacinaPackage) -> Any:
    return owned_by(package).to_json_dict() | {"controller": False}


@pytest.mark.parametrize("seed", range(6))
async def test_two_who_deploy_at_once_end_with_one_whole_archive(
    store: KubernetesStore, namespace: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, request = random.Random(seed), store.api.request

    async def slow(*words: Any, **options: Any) -> Any:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        return await request(*words, **options)

    monkeypatch.setattr(store.api, "request", slow)
    await shipped(shipment(SMALL, namespace), store)

    await asyncio.gather(shipped(shipment(LARGE, namespace), store), shipped(shipment(SMALL, namespace), store))

    assert await named(store, namespace) in (SMALL, LARGE)


async def test_what_a_killed_deployment_left_goes_when_it_is_old(
    store: KubernetesStore, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = shipment(LARGE, namespace)
    for part in left.parts():
        await store.api.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body=part)
    await shipped(shipment(SMALL, namespace), store)
    assert len(await parts(store, namespace)) == 3, "somebody may be on the way with it"

    monkeypatch.setattr("cloaca.store.kubernetes.shipped.LEFT_OVER", -LEFT_OVER)
    await shipped(shipment(SMALL, namespace), store)

    assert len(await parts(store, namespace)) == 1


async def test_a_config_map_that_is_not_ours_is_left_alone(store: KubernetesStore, namespace: str) -> None:
    wanted = shipment(SMALL, namespace)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": wanted.source.name}, "data": {"a": "b"}}
    await store.api.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body=body)

    with pytest.raises(CloacaError, match="exists and holds something else: remove it"):
        await shipped(wanted, store)
