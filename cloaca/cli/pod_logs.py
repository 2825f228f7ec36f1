"""What user code printed on a cluster: the logs of the pods of a run or a package. Says where none is, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloaca.cli.about_package import package_summary
from cloaca.cli.about_run import run_summary
from cloaca.cli.kinds import existing
from cloaca.cli.terminal import remark
from cloaca.errors import CloacaError, Invalid, NotFound
from cloaca.resources import CloacinaPackage, WorkflowRun
from cloaca.resources.names import COMPONENT_LABEL, MAIN_CONTAINER, PACKAGE_LABEL, RUN_LABEL, label_value
from cloaca.store.kubernetes.store import KubernetesStore

PAUSE = 0.5  # seconds between two looks for a pod that has not begun
Write = Callable[[bytes], None]


@dataclass(frozen=True, kw_only=True)
class Whose:
    """Whose pods."""

    kind: type[Any]
    name: str
    namespace: str

    @property
    def selector(self) -> str:
        """Of the labels of the pods."""
        if self.kind is WorkflowRun:
            return f"{RUN_LABEL}={label_value(self.name)},{COMPONENT_LABEL}=run"
        return f"{PACKAGE_LABEL}={label_value(self.name)},{COMPONENT_LABEL} in (poller,inspection)"


async def show(store: KubernetesStore, whose: Whose, tail: int | None, write: Write) -> None:
    """Write what the pods printed, the oldest first. Raises CloacaError where there is nothing to be had."""
    pods = await _pods(store, whose)
    silent, shown = "", 0
    for pod in pods if tail is None else pods[-1:]:
        try:
            shown += await _copy(store, pod, {} if tail is None else {"tailLines": str(tail)}, write)
        except (Invalid, NotFound) as error:  # it has not begun, or went just now
            silent = str(error)
    if silent or not pods:
        raise CloacaError(await _absence(store, whose, silent))
    if not shown:
        remark(f"{whose.name!r} printed nothing")


async def follow(store: KubernetesStore, whose: Whose, tail: int | None, write: Write) -> None:
    """Write what the pods print, as they do, until the run has ended. Raises CloacaError where it ended without any."""
    seen: set[str] = set()
    waiting = False
    while True:
        ended = await _ended(store, whose)  # asked first: what was printed before the end is shown
        new = [pod for pod in await _pods(store, whose) if pod["metadata"]["uid"] not in seen]
        for pod in new:
            try:
                options = {"follow": "true", **({} if tail is None else {"tailLines": str(tail)})}
                await _copy(store, pod, options, write)
            except (Invalid, NotFound):
                if not ended:
                    break
            seen.add(pod["metadata"]["uid"])
        else:
            if ended and not seen:
                raise CloacaError(await _absence(store, whose, ""))
            if ended:
                return
        if not seen and not waiting:
            waiting = True
            remark(f"waiting for {await _summary(store, whose)}")
        await asyncio.sleep(PAUSE)


async def _pods(store: KubernetesStore, whose: Whose) -> list[Any]:
    path = f"/api/v1/namespaces/{whose.namespace}/pods"
    pods, _ = await store.api.everything(path, {"labelSelector": whose.selector})
    return sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


async def _copy(store: KubernetesStore, pod: Any, options: dict[str, str], write: Write) -> int:
    metadata, count = pod["metadata"], 0
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log"
    async for piece in store.api.stream(path, {"container": MAIN_CONTAINER, **options}):
        write(piece)
        count += len(piece)
    return count


async def _ended(store: KubernetesStore, whose: Whose) -> bool:
    found = await store.get(whose.kind, whose.name, whose.namespace)
    return found is None or (isinstance(found, WorkflowRun) and found.status.phase.finished)


async def _absence(store: KubernetesStore, whose: Whose, said: str) -> str:
    why = f": {said}" if said else ": it has no pod, or none any more (Jobs are removed some time after their end)"
    return f"{await _summary(store, whose)} has no log{why}"


async def _summary(store: KubernetesStore, whose: Whose) -> str:
    found = await existing(store, whose.kind, whose.name, whose.namespace)
    said = package_summary(found) if isinstance(found, CloacinaPackage) else run_summary(found)
    return f"{'package' if whose.kind is CloacinaPackage else 'run'} {whose.name!r} ({said})"
