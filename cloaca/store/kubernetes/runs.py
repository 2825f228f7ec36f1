"""The one run that a pod is for, on a Kubernetes API server: read and recorded as plain JSON, with no type of ours."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

from cloaca.errors import Conflict, Invalid, NotFound
from cloaca.resources.recorded import PLURAL, RecordedRun, read_run
from cloaca.resources.ref import API_VERSION, Ref
from cloaca.store.kubernetes.config import find_server, parse_url
from cloaca.store.kubernetes.direct import Direct
from cloaca.store.kubernetes.refusals import JSON_PATCH


class KubernetesRuns:
    """A ``RunStore``."""

    waits = True

    def __init__(self, server: Direct) -> None:
        self._server = server

    @classmethod
    def open(cls, url: str) -> KubernetesRuns:
        """The runs at ``url`` (see ``config.parse_url``). Raises StoreUnavailable."""
        return cls(Direct(find_server(parse_url(url), os.environ)))

    def run_here(self, name: str, namespace: str) -> RecordedRun | None:
        found = self._look(name, namespace)
        return None if found is None else read_run(found)

    def record_here(self, ref: Ref, uid: str, version: str, status: str) -> str:
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/status", "value": json.loads(status)},
        ]
        path = f"{_path(ref.name, ref.namespace)}/status"
        try:
            written = self._server.request(
                "PATCH", path, body=patch, params={"fieldValidation": "Strict"}, content_type=JSON_PATCH
            )
        except NotFound as error:
            raise NotFound(f"{ref} is gone") from error
        except (Conflict, Invalid) as error:
            found = self._look(ref.name, ref.namespace)
            if found is None or found["metadata"]["uid"] != uid:
                raise NotFound(f"{ref} is gone") from error
            if isinstance(error, Conflict):
                raise Conflict(f"{ref} changed since it was read: look again") from error
            raise Invalid(f"{ref}: {error}") from error
        return str(written["metadata"]["resourceVersion"])

    def _look(self, name: str, namespace: str) -> dict[str, Any] | None:
        if not name or not namespace:
            return None  # that would be the path of a list
        try:
            return self._server.request("GET", _path(name, namespace))
        except NotFound:
            return None

    def close_here(self) -> None:
        self._server.close()


def _path(name: str, namespace: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{quote(namespace, safe='')}/{PLURAL}/{quote(name, safe='')}"
