"""What a person reads under ``kubectl describe``: each thing that happened, once, whoever leads."""

from __future__ import annotations

from typing import Any

from builders import WORKFLOW, archive, declared
from cluster.operated import Cluster

from cloaca.resources import Trigger
from cloaca.resources.package import ConfigMapSource, PackageSource

CODE = (
    WORKFLOW
    + """
@cloaca.trigger(name="inbox", poll_interval="200ms")
def inbox(state):
    if "fired" in state:
        return cloaca.TriggerResult.skip()
    state.set("fired", True)
    return cloaca.TriggerResult.fire(cloaca.Context({"n": 1}), key="once")

@cloaca.trigger(name="broken", poll_interval="200ms")
def broken():
    raise OSError("no such inbox")
"""
)


async def events(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Ours, by name."""
    path = f"/apis/events.k8s.io/v1/namespaces/{cluster.namespace}/events"
    items = (await cluster.api.request("GET", path))["items"]
    ours = [item for item in items if item["reportingController"] == "cloacina.io/operator"]
    return {item["metadata"]["name"]: item for item in ours}


def said(found: dict[str, dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    """(object, type, reason, first line) of each."""
    return {
        (item["regarding"]["name"], item["type"], item["reason"], item["note"].splitlines()[0])
        for item in found.values()
    }


async def test_what_happened_is_said_once_whoever_leads(cluster: Cluster) -> None:
    cluster.start("one")
    data = archive(CODE, triggers=[declared("inbox"), declared("broken")])
    (cluster.folder / "demo.cloacina").write_bytes(data)
    cluster.kubectl("create", "configmap", "shipped", f"--from-file=archive={cluster.folder}/demo.cloacina")
    package = await cluster.sourced(source=PackageSource(config_map=ConfigMapSource(name="shipped", key="archive")))
    (run,) = await cluster.ended(1)
    took = (run.status.finished_at - run.status.started_at).total_seconds()  # type: ignore[operator]  # it has ended
    expected = {
        ("demo", "Normal", "Ready", "version 1.0.0 is active"),
        ("demo-inbox", "Normal", "Polling", "every 200ms"),
        ("demo-broken", "Normal", "Polling", "every 200ms"),
        ("demo-inbox", "Normal", "Fired", f"run {run.name} for key 'once'"),
        ("demo-broken", "Warning", "ErrorsInARow", "the last polls failed, most recently with: OSError: no such inbox"),
        (run.name, "Normal", "Completed", f"completed in {took:.1f} s"),
    }

    async def all_said() -> dict[str, dict[str, Any]] | None:
        found = await events(cluster)
        print("missing:", expected - said(found))  # where it fails, the last of these says why
        return found if said(found) >= expected else None

    before = await cluster.eventually("all Events", all_said)
    described = cluster.plane.kubectl("describe", "ctrig", "demo-inbox", "-n", cluster.namespace)
    assert f"run {run.name} for key 'once'" in described.partition("Events:")[2]

    cluster.kill("one")
    trigger = await cluster.store.get(Trigger, "demo-broken", cluster.namespace)
    assert trigger is not None
    suspended = trigger.with_spec(suspend=True).with_metadata(resource_version="")  # its poller goes on writing
    await cluster.store.update(suspended)
    cluster.start("two")
    await cluster.leads("two")
    await cluster.submit("canary", package)

    async def canary_said() -> dict[str, dict[str, Any]] | None:
        found = await events(cluster)
        reasons = {(item["regarding"]["name"], item["reason"]) for item in found.values()}
        return found if reasons >= {("canary", "Completed"), ("demo-broken", "Suspended")} else None

    after = await cluster.eventually("the Events of the next leader", canary_said)
    new = {name: item for name, item in after.items() if name not in before}
    assert {item["regarding"]["name"] for item in new.values()} == {"canary", "demo-broken"}, said(new)
    assert {name: after[name]["metadata"]["uid"] for name in before} == {
        name: item["metadata"]["uid"] for name, item in before.items()
    }
