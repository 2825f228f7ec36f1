"""The one run that a pod is for, on a Kubernetes API server: read and recorded as plain JSON, with no type of ours."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import quote

from cloaca.errors import Conflict, Invalid, NotFound
from cloaca.resources.recorded import PLURAL, RecordedRun, read_run
from cloaca.resources.ref import API_VERSION, Ref
from cloaca.store.kubernetes.api import JSON_PATCH, Api, Object
from cloaca.store.kubernetes.config import find_server, parse_url

T = TypeVar("T")


class KubernetesRuns:
    """A ``RunStore``. Belongs to the event loop in which it was made."""

    waits = True

    def __init__(self, api: Api) -> None:
        self._api = api
        self._loop = asyncio.get_running_loop()

    @classmethod
    def open(cls, url: str) -> KubernetesRuns:
        """The runs at ``url`` (see ``config.parse_url``). Raises StoreUnavailable."""
        return cls(Api(find_server(parse_url(url), os.environ)))

    async def run(self, name: str, namespace: str) -> RecordedRun | None:
        found = await self._look(name, namespace)
        return None if found is None else read_run(found)

    def run_here(self, name: str, namespace: str) -> RecordedRun | None:
        return self._ask(self.run(name, namespace))

    def record_here(self, ref: Ref, uid: str, version: str, status: str) -> str:
        return self._ask(self._record(ref, uid, version, status))

    async def _record(self, ref: Ref, uid: str, version: str, status: str) -> str:
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/status", "value": json.loads(status)},
        ]
        path = f"{_path(ref.name, ref.namespace)}/status"
        try:
            written = await self._api.request(
                "PATCH", path, body=patch, params={"fieldValidation": "Strict"}, content_type=JSON_PATCH
            )
        except NotFound as error:
            raise NotFound(f"{ref} is gone") from error
        except (Conflict, Invalid) as error:
            found = await self._look(ref.name, ref.namespace)
            if found is None or found["metadata"]["uid"] != uid:
                raise NotFound(f"{ref} is gone") from error
            if isinstance(error, Conflict):
                raise Conflict(f"{ref} changed since it was read: look again") from error
            raise Invalid(f"{ref}: {error}") from error
        return str(written["metadata"]["resourceVersion"])

    async def _look(self, name: str, namespace: str) -> Object | None:
        if not name or not namespace:
            return None  # that would be the path of a list
        try:
            return await self._api.request("GET", _path(name, namespace))
        except NotFound:
            return None

    async def close(self) -> None:
        await self._api.close()

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()


def _path(name: str, namespace: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{quote(namespace, safe='')}/{PLURAL}/{quote(name, safe='')}"
