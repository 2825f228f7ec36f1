"""Operators as processes on a real API server with its controllers, in one namespace whose pods a player starts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from builders import WORKFLOW, archive, declared
from cluster.control_plane import Asked, ControlPlane
from cluster.player import Player
from cluster.release import Release
from servers import free_port

from cloaca.resources import CloacinaPackage, ObjectMeta, WorkflowRun
from cloaca.resources.package import (
    ActivePackage,
    PackageSource,
    PackageSpec,
    TaskEntry,
    TriggerEntry,
    WorkflowEntry,
)
from cloaca.resources.run import RunSpec
from cloaca.resources.trigger import PackageReference
from cloaca.store import Store
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.archives import digest_of, package_parts

PATIENCE = 110.0  # seconds, where pods are processes on a busy machine


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
            "CLOACINA_SOURCES_ALLOW_LOCAL": "true",  # the tests' sources listen on this machine
            "CLOACINA_POLLER_PORT": "0",  # pollers of all tests share the ports of this machine
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
        digest = digest_of(data)
        source = PackageSource(url="https://127.0.0.1:1/demo.cloacina")
        made = await self.store.create(
            CloacinaPackage(metadata=ObjectMeta(name="demo", namespace=self.namespace), spec=PackageSpec(source=source))
        )
        await self.publish(made, data)
        entries = tuple(TriggerEntry(name=name, workflow="demo", poll_interval="200ms") for name in triggers)
        return await self.store.write_status(
            made.with_status(
                active=ActivePackage(digest=digest, version="1.0.0", since=datetime.now(timezone.utc)),
                workflows=(WorkflowEntry(name="demo", tasks=("only",)),),
                tasks=(TaskEntry(id="only"),),
                triggers=entries,
            )
        )

    async def publish(self, package: CloacinaPackage, data: bytes) -> None:
        """Have the archive beside the package, as its inspection would."""
        namespace = package.metadata.namespace
        for part in package_parts(package.name, package.metadata.uid, namespace, data):
            await self.api.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body=part)

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
