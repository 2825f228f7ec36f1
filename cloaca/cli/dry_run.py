"""Call the function of a deployed Trigger as its poller would; say what would become of its fires. Submits nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloaca.cli.kinds import existing
from cloaca.cli.source import Unpacked
from cloaca.errors import CloacaError
from cloaca.packages.archive import Limits, read_archive, unpack
from cloaca.packages.environment import environment_of
from cloaca.polling.ledger import FiredKeys
from cloaca.polling.messages import Ended, Fire, Request, Yielded
from cloaca.polling.tick import intend, is_taken, second_name
from cloaca.resources import CloacinaPackage, ConcurrencyPolicy, Trigger, WorkflowRun
from cloaca.resources.conditions import find
from cloaca.resources.names import COMPONENT_LABEL, PACKAGE_LABEL, label_value
from cloaca.resources.run import TriggerReference
from cloaca.resources.spans import parse_span
from cloaca.resources.trigger import EffectiveSettings, FireIntent
from cloaca.store import ArchiveStore, Store

if TYPE_CHECKING:
    from cloaca.store.kubernetes.store import KubernetesStore


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What would become of one fire."""

    run: str
    verdict: str
    fire: Fire


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A Trigger as its poller sees it."""

    trigger: Trigger
    package: CloacinaPackage
    effective: EffectiveSettings

    @property
    def request(self) -> Request:
        """What the poller would ask of the function now: same config, same state."""
        return Request(
            id=1,
            trigger=self.trigger.spec.name,
            config=self.effective.config,
            state=self.trigger.status.state,
        )

    @property
    def timeout(self) -> float:
        """Seconds."""
        return parse_span(self.effective.timeout)

    @property
    def environment(self) -> dict[str, str]:
        """What the package's pod template adds."""
        return dict(environment_of(self.package))


async def deployed(store: Store, name: str, namespace: str) -> Deployed:
    """The Trigger and what belongs to it. Raises CloacaError where it cannot be polled, and why."""
    trigger: Trigger = await existing(store, Trigger, name, namespace)
    package = await store.get(CloacinaPackage, trigger.spec.package_ref.name, namespace)
    effective = trigger.status.effective
    if package is None or effective is None:
        said = find(trigger.status.conditions, "Ready")
        why = said.message or said.reason if said else "nobody has looked at it yet"
        raise CloacaError(f"trigger {name!r} cannot be polled: {why}; see `cloaca describe trigger {name}`")
    return Deployed(trigger=trigger, package=package, effective=effective)


async def kept(store: ArchiveStore, of: Deployed) -> bytes | None:
    """The archive whose function the poller calls, from the store."""
    return await store.get_archive(of.effective.digest)


async def mounted(store: KubernetesStore, of: Deployed) -> bytes | None:
    """The same from the ConfigMaps that the pods of the package mount: the store's own may be out of our reach."""
    from cloaca.store.kubernetes.archives import of_pods

    package = of.package
    selector = f"{COMPONENT_LABEL}=archive,{PACKAGE_LABEL}={label_value(package.name)}"
    path = f"/api/v1/namespaces/{package.metadata.namespace}/configmaps"
    found, _ = await store.api.everything(path, {"labelSelector": selector})
    return of_pods(of.effective.digest, found)


def beyond(package: CloacinaPackage) -> list[str]:
    """What a pod of the package has and a process here does not."""
    template = (package.spec.pod_template or {}).get("spec", {})
    containers = template.get("containers", [])
    named = [entry["name"] for one in containers for entry in one.get("env", []) if "valueFrom" in entry]
    sources = [
        str(source.get(kind, {}).get("name"))
        for one in containers
        for source in one.get("envFrom", [])
        for kind in ("secretRef", "configMapRef")
        if kind in source
    ]
    volumes = [str(volume["name"]) for volume in template.get("volumes", [])]
    lines = [f"variables with valueFrom: {', '.join(named)}"] if named else []
    lines += [f"variables of {', '.join(sources)}"] if sources else []
    return lines + ([f"volumes: {', '.join(volumes)}"] if volumes else [])


async def unpacked_from(data: bytes | None, of: Deployed, folder: Path) -> Unpacked:
    """The archive, as files in ``folder``. Raises CloacaError where there is none."""
    if data is None:
        raise CloacaError(f"the archive {of.effective.digest} is not in the store: deploy the package again")
    limits = Limits()
    unpack(data, folder / "package", limits)
    return Unpacked(root=folder / "package", manifest=read_archive(data, limits).manifest, scratch=folder)


async def verdicts(store: Store, of: Deployed, answer: Yielded | Ended) -> tuple[Verdict, ...]:
    """What would become of each fire of ``answer``: it runs, it ran before, or it waits."""
    if not answer.fires:
        return ()
    trigger, namespace = of.trigger, of.trigger.metadata.namespace
    pending = intend(trigger, answer.fires, answer.state, [f"dry-run-{n}" for n in range(len(answer.fires))])
    keys = FiredKeys(store, TriggerReference(name=trigger.name, uid=trigger.metadata.uid), namespace)
    await keys.refresh()
    found = []
    before = list(trigger.status.active)
    for fire, intent in zip(answer.fires, pending.fires, strict=True):
        run, verdict = await _verdict(store, of, intent, keys, before)
        found.append(Verdict(run=run, verdict=verdict, fire=fire))
        if verdict.startswith(("would fire", "blocked")):
            before.append(run)
    return tuple(found)


async def _verdict(
    store: Store, of: Deployed, intent: FireIntent, keys: FiredKeys, before: list[str]
) -> tuple[str, str]:
    trigger = of.trigger
    if intent.key is not None and intent.key in keys:
        return intent.name, f"deduplicated by run {intent.name}, which was collected"
    run = await store.get(WorkflowRun, intent.name, trigger.metadata.namespace)
    if run is not None and not is_taken(run, trigger, intent):
        return intent.name, f"deduplicated by run {run.name} ({run.status.phase.value})"
    name = intent.name if run is None else second_name(trigger, intent).name
    if name in before:
        return name, f"deduplicated by run {name}, of the same poll"
    if before and of.effective.concurrency_policy is ConcurrencyPolicy.FORBID:
        return name, f"blocked by active run {before[0]}: it waits for its turn"
    if before and of.effective.concurrency_policy is ConcurrencyPolicy.REPLACE:
        return name, f"would fire, and replace {before[0]}"
    return name, "would fire"


def told(of: Deployed, fires: tuple[Verdict, ...]) -> list[str]:
    """The verdicts for a person."""
    lines = []
    for one in fires:
        lines.append(f"Run:        {one.run}, of workflow {of.effective.workflow}: {one.verdict}")
        if one.fire.key is not None:
            lines.append(f"  Key:      {one.fire.key}")
        lines.append(f"  Context:  {json.dumps(one.fire.context, ensure_ascii=False)}")
    return lines
