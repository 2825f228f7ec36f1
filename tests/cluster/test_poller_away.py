"""A poller while its API server is away: it polls on, and it stops when it is asked to."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from builders import WORKFLOW, archive, declared
from cluster.control_plane import ControlPlane
from pod_process import Pod

from cloaca.resources import CloacinaPackage, ObjectMeta, Trigger, TriggerSpec
from cloaca.resources.package import PackageSource, PackageSpec
from cloaca.resources.trigger import ConcurrencyPolicy, EffectiveSettings, PackageReference
from cloaca.store import open_store

PATIENCE = 60.0
TRIGGER = """
@cloaca.trigger(name="inbox", poll_interval="100ms")
def inbox():
    with open({calls!r}, "a") as file:
        file.write("called\\n")
    return cloaca.TriggerResult.skip()
"""


async def test_it_stops_when_asked_though_what_it_polled_cannot_be_recorded(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not control_plane.processes:
        pytest.skip("it stops the API server, and this one is somebody else's")
    calls = tmp_path / "calls"
    code = WORKFLOW + TRIGGER.format(calls=str(calls))
    pod = Pod(tmp_path, archive(code, triggers=[declared("inbox")]), part=1_000_000)
    url = f"kubernetes://{control_plane.kubeconfig}?namespace={namespace}"
    await a_trigger(url, namespace, pod.digest)
    where = ["--store", url, "--namespace", namespace, "--package", "demo", "--drain", "2"]
    process = pod.start("poll", *where)
    try:
        await recorded(url, namespace)  # the next record is due in a minute, so what is polled from now on waits for it
        control_plane.stop("kube-apiserver")
        await called(calls, len(calls.read_text().split()) + 3)

        process.send_signal(signal.SIGTERM)

        said, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert process.returncode == 0, said
        assert "the last polls are not recorded" in said
    finally:
        process.kill()
        if "kube-apiserver" not in control_plane.processes:
            control_plane.start("kube-apiserver")


async def called(calls: Path, times: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while not calls.exists() or len(calls.read_text().split()) < times:
            await asyncio.sleep(0.02)


async def recorded(url: str, namespace: str) -> None:
    store = await open_store(url)
    try:
        async with asyncio.timeout(PATIENCE):
            while (seen := await store.get(Trigger, "demo-inbox", namespace)) is None or not seen.status.ticks:
                await asyncio.sleep(0.02)
    finally:
        await store.close()


async def a_trigger(url: str, namespace: str, digest: str) -> None:
    """As an operator leaves it that has accepted the archive."""
    store: Any = await open_store(url)
    source = PackageSource(url="https://127.0.0.1:1/demo.cloacina")
    await store.create(
        CloacinaPackage(metadata=ObjectMeta(name="demo", namespace=namespace), spec=PackageSpec(source=source))
    )
    spec = TriggerSpec(package_ref=PackageReference(name="demo"), name="inbox")
    trigger = await store.create(Trigger(metadata=ObjectMeta(name="demo-inbox", namespace=namespace), spec=spec))
    effective = EffectiveSettings(
        workflow="demo", poll_interval="100ms", concurrency_policy=ConcurrencyPolicy.FORBID, timeout="60s",
        config={}, digest=digest,
    )  # fmt: skip
    await store.write_status(trigger.with_status(effective=effective))
    await store.close()
