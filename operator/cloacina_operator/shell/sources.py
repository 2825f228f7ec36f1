"""Get the archive of a package from where its spec says: a ConfigMap, http(s), or a file of the daemon's machine.

Reads the Secret and the ConfigMap that the package names, and nothing else; shows no value of a Secret. Further kinds
of sources join in ``cloaca.packages.sources.fetch``.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Protocol

from cloaca.errors import Forbidden, NotFound, SourceError
from cloaca.packages.http import Credentials
from cloaca.packages.sources import UnsupportedSource, fetch
from cloaca.resources import CloacinaPackage
from cloaca.resources.package import ConfigMapSource
from cloaca.store.kubernetes.archives import count, source_part


class Cluster(Protocol):
    """What we ask of an API server."""

    async def request(self, method: str, path: str) -> dict[str, Any]:
        """The answer. Raises NotFound, Forbidden, StoreUnavailable."""
        ...


async def fetch_source(package: CloacinaPackage, *, limit: int, files: bool, cluster: Cluster | None) -> bytes:
    """The bytes, at most ``limit``. ``cluster``: None outside of one.

    Raises UnsupportedSource where another try cannot help, SourceError and StoreUnavailable where it may.
    """
    source = package.spec.source
    if source.config_map is not None:
        if cluster is None:
            raise UnsupportedSource("spec.source.configMap: there are no ConfigMaps outside of a cluster; use url")
        return await _from_config_map(cluster, package.metadata.namespace, source.config_map, limit)
    if source.url is None:
        raise UnsupportedSource("spec.source: neither url nor configMap is set")
    credentials = None
    if package.spec.secret_ref is not None:
        if cluster is None:
            raise UnsupportedSource("spec.secretRef: there are no Secrets outside of a cluster")
        credentials = await _credentials(cluster, package.metadata.namespace, package.spec.secret_ref.name)
    return await fetch(source.url, limit=limit, files=files, credentials=credentials)


async def _from_config_map(cluster: Cluster, namespace: str, source: ConfigMapSource, limit: int) -> bytes:
    first = await _named(cluster, namespace, "configmaps", source.name)
    data = b""
    for part in range(count(first)):
        name = source_part(source.name, part)
        found = first if part == 0 else await _named(cluster, namespace, "configmaps", name)
        text = (found.get("binaryData") or {}).get(source.key)
        if text is None:
            keys = ", ".join(sorted(found.get("binaryData") or {})) or "none"
            raise SourceError(f"the ConfigMap {namespace}/{name} has no binaryData[{source.key!r}]; its keys: {keys}")
        data += base64.b64decode(text)
        if len(data) > limit:
            raise SourceError(f"the ConfigMap {namespace}/{source.name} holds more than the limit of {limit:,} bytes")
    return data


async def _credentials(cluster: Cluster, namespace: str, name: str) -> Credentials:
    """From a Secret with ``token``, or with ``username`` and ``password``."""
    data = (await _named(cluster, namespace, "secrets", name)).get("data") or {}
    try:
        values = {key: base64.b64decode(data[key]).decode().strip("\n") for key in _KEYS if key in data}
    except (binascii.Error, UnicodeDecodeError):
        raise SourceError(f"the Secret {namespace}/{name}: token, username and password must be text") from None
    if "token" in values:
        return Credentials(token=values["token"])
    if {"username", "password"} <= values.keys():
        return Credentials(username=values["username"], password=values["password"])
    raise SourceError(f"the Secret {namespace}/{name} needs the key token, or the keys username and password")


_KEYS = ("token", "username", "password")


async def _named(cluster: Cluster, namespace: str, plural: str, name: str) -> dict[str, Any]:
    kind = {"configmaps": "ConfigMap", "secrets": "Secret"}[plural]
    try:
        return await cluster.request("GET", f"/api/v1/namespaces/{namespace}/{plural}/{name}")
    except Forbidden as error:  # a role that does not allow it, which may be changed
        said = f"the operator may not read {kind} {namespace}/{name}: {error}"
        raise SourceError(f"{said}: allow it, for a Secret with sourceSecrets of the chart") from error
    except NotFound as error:
        raise SourceError(f"there is no {kind} {namespace}/{name}, which the package names: create it") from error
