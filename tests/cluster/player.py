"""Plays the kubelet where none runs: the real API server and controllers make pods, and this says what becomes of them.

A pod's container can be executed as a real local process, with its ConfigMaps laid out as the kubelet does it.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from cloacina_operator.core.inspections import (
    FETCH_CONTAINER,
    SECRET_PATH,
    SECRET_VOLUME,
    SOURCE_PATH,
    SOURCE_VOLUME,
)
from cloacina_operator.core.manifests import ARCHIVE_PATH, ARCHIVE_VOLUME
from cluster.control_plane import ControlPlane

from cloaca.errors import NotFound
from cloaca.resources.names import MAIN_CONTAINER
from cloaca.store.kubernetes.api import Api

Object = dict[str, Any]


class Player:
    """Says what becomes of the pods of one namespace."""

    def __init__(self, api: Api, namespace: str, folder: Path, plane: ControlPlane) -> None:
        self._plane = plane
        self._api = api
        self._namespace = namespace
        self._folder = folder
        self.fetched: dict[str, list[Object]] = {}  # uid of an inspection's pod -> statuses of its first container

    async def pods(self, component: str) -> list[Object]:
        """The pods of a component that are there."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        params = {"labelSelector": f"cloacina.io/component={component}"}
        return list((await self._api.request("GET", path, params=params))["items"])

    async def pod(self, component: str, seconds: float = 30.0) -> Object:
        """The one pod of a component, once a controller has made it."""
        async with asyncio.timeout(seconds):
            while True:
                found = [pod for pod in await self.pods(component) if not pod["metadata"].get("deletionTimestamp")]
                if found:
                    return found[0]
                await asyncio.sleep(0.05)

    async def report(self, pod: Object, phase: str, container: Object | None = None, **status: Any) -> None:
        """Write the status of a pod, as a kubelet does."""
        state = {"name": MAIN_CONTAINER, "image": "i", "imageID": "", "ready": phase == "Running", "restartCount": 0}
        reported = {
            "phase": phase,
            "startTime": "2026-03-28T09:00:00Z",
            "conditions": [{"type": "Ready", "status": "True" if phase == "Running" else "False"}],
            "containerStatuses": [] if container is None else [{**state, **container}],
            **status,
        }
        if pod["metadata"]["uid"] in self.fetched:
            reported["initContainerStatuses"] = self.fetched[pod["metadata"]["uid"]]
        with suppress(NotFound):
            path = f"/api/v1/namespaces/{self._namespace}/pods/{pod['metadata']['name']}/status"
            fresh = await self._api.request("GET", path.removesuffix("/status"))
            await self._api.request("PUT", path, body={**fresh, "status": reported})

    async def runs(self, pod: Object) -> None:
        """Its container runs."""
        await self.report(pod, "Running", {"state": {"running": {"startedAt": "2026-03-28T09:00:00Z"}}})

    async def waits(self, pod: Object, reason: str, message: str) -> None:
        """Its container cannot start."""
        await self.report(pod, "Pending", {"state": {"waiting": {"reason": reason, "message": message}}})

    async def ends(self, pod: Object, code: int, reason: str = "", message: str = "") -> None:
        """Its container ended."""
        ended = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": message,
            "startedAt": "2026-03-28T09:00:00Z",
            "finishedAt": "2026-03-28T09:00:01Z",
        }
        await self.report(pod, "Succeeded" if code == 0 else "Failed", {"state": {"terminated": ended}})

    async def execute(self, pod: Object) -> int:
        """Run its container here, and report how it ended; returns the exit code."""
        home = self._folder / pod["metadata"]["name"]
        archive, words = home / "archive", home / "termination-log"
        archive.mkdir(parents=True)
        for volume in pod["spec"]["volumes"]:
            if volume["name"] == ARCHIVE_VOLUME and "projected" in volume:
                for source in volume["projected"]["sources"]:
                    await self._mount(source["configMap"], archive)
        if (code := await self._fetch(pod, home, archive)) != 0:
            return code
        container = next(c for c in pod["spec"]["containers"] if c["name"] == MAIN_CONTAINER)
        arguments = [str(archive) if word == ARCHIVE_PATH else word for word in container["args"]]
        await self.runs(pod)
        kubeconfig = await self._identity(pod, home)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *arguments,
            "--scratch",
            str(home / "tmp"),
            env={
                **os.environ,
                "KUBECONFIG": str(kubeconfig),
                "CLOACA_LAST_WORDS": str(words),
                "CLOACA_POD": pod["metadata"]["name"],
            },
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:  # its pod was deleted
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), pod["spec"]["terminationGracePeriodSeconds"])
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()
            raise
        await self.ends(pod, code, message=words.read_text() if words.exists() else "")
        return code

    async def _fetch(self, pod: Object, home: Path, archive: Path) -> int:
        """Run the container of an inspection that fetches, and report how it ended."""
        fetch = next((one for one in pod["spec"].get("initContainers", ()) if one["name"] == FETCH_CONTAINER), None)
        if fetch is None:
            return 0
        folders = {ARCHIVE_PATH: archive, SOURCE_PATH: home / "source", SECRET_PATH: home / "secret"}
        for volume in pod["spec"]["volumes"]:
            if volume["name"] == SOURCE_VOLUME:
                folders[SOURCE_PATH].mkdir()
                for source in volume["projected"]["sources"]:
                    with suppress(NotFound):
                        await self._mount(source["configMap"], folders[SOURCE_PATH])
            if volume["name"] == SECRET_VOLUME:
                await self._mount_secret(volume["secret"]["secretName"], folders[SECRET_PATH])
        name, words = pod["metadata"]["name"], home / "fetch-log"
        given = {
            entry["name"]: entry["value"] for entry in fetch["env"] if "value" in entry and entry["name"] != "HOME"
        }
        token = await asyncio.to_thread(self._plane.token, pod["spec"]["serviceAccountName"], self._namespace, name)
        kubeconfig = await asyncio.to_thread(self._plane.kubeconfig_of_token, token, f"{name}-fetch", self._namespace)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *(str(folders.get(word, word)) for word in fetch["args"]),
            env={**os.environ, **given, "KUBECONFIG": str(kubeconfig), "CLOACA_LAST_WORDS": str(words)},
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:  # its pod was deleted
            process.kill()
            await process.wait()
            raise
        ended = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "message": words.read_text() if words.exists() else "",
            "startedAt": "2026-03-28T09:00:00Z",
            "finishedAt": "2026-03-28T09:00:01Z",
        }
        state = {"image": "i", "imageID": "", "ready": code == 0, "restartCount": 0, "state": {"terminated": ended}}
        self.fetched[pod["metadata"]["uid"]] = [{"name": FETCH_CONTAINER, **state}]
        await self.report(pod, "Pending" if code == 0 else "Failed")
        return code

    async def _mount_secret(self, name: str, folder: Path) -> None:
        folder.mkdir()
        with suppress(NotFound):
            secret = await self._api.request("GET", f"/api/v1/namespaces/{self._namespace}/secrets/{name}")
            for key, value in (secret.get("data") or {}).items():
                (folder / key).write_bytes(base64.b64decode(value))

    async def play(self) -> None:
        """Execute every pod that comes, until cancelled; end those whose pods go."""
        playing: dict[str, asyncio.Task[int]] = {}
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        try:
            while True:
                pods = {pod["metadata"]["uid"]: pod for pod in (await self._api.request("GET", path))["items"]}
                for uid, pod in pods.items():
                    if uid not in playing and not pod["metadata"].get("deletionTimestamp"):
                        playing[uid] = asyncio.ensure_future(self.execute(pod))
                for uid, task in playing.items():
                    gone = uid not in pods or pods[uid]["metadata"].get("deletionTimestamp")
                    if gone and not task.cancelling():  # once: a second time would take it from its process's end
                        task.cancel()
                await asyncio.sleep(0.1)
        finally:
            for task in playing.values():
                if not task.cancelling():
                    task.cancel()
            if playing:
                await asyncio.wait(playing.values())

    async def _identity(self, pod: Object, home: Path) -> Path:
        """A kubeconfig with the token that the pod would have mounted; where it has none, a path that is not there."""
        if pod["spec"].get("automountServiceAccountToken") is False:  # of an inspection: only its fetch has one
            return home / "no-identity"
        name, account = pod["metadata"]["name"], pod["spec"]["serviceAccountName"]
        token = await asyncio.to_thread(self._plane.token, account, self._namespace, name)
        return await asyncio.to_thread(self._plane.kubeconfig_of_token, token, name, self._namespace)

    async def _mount(self, source: Object, folder: Path) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{source['name']}"
        data = (await self._api.request("GET", path)).get("binaryData") or {}
        for item in source["items"]:
            if source.get("optional") and item["key"] not in data:
                continue
            (folder / item["path"]).write_bytes(base64.b64decode(data[item["key"]]))
