"""The archives of packages, in the ConfigMaps that their inspections published: how many, whether, and which go.

Reads what the ConfigMaps are called, never what an archive holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from cloaca.errors import Conflict, ManifestError, NotFound
from cloaca.packages.manifest import MANIFEST_LIMIT, Manifest, parse_manifest
from cloaca.processes.report import nonsense
from cloaca.resources import CloacinaPackage, Ref
from cloaca.resources.names import (
    COMPONENT_LABEL,
    PACKAGE_LABEL,
    archive_manifest_name,
    archive_part_name,
    label_value,
)
from cloaca.store.kubernetes.api import NAMES_ONLY, NAMES_ONLY_EVENTS, Api
from cloaca.store.kubernetes.archives import count, manifest_in, part_count, source_part
from cloacina_operator.core.manifests import Component
from cloacina_operator.executors.base import ArchiveMissing
from cloacina_operator.executors.sightings import digest_of
from cloacina_operator.executors.watched import Object

NEW = timedelta(minutes=1)
SOURCE_PARTS = 32
"""ConfigMaps of a source that are looked at for news."""


class KeptArchives:
    """Belongs to one event loop."""

    def __init__(self, api: Api, now: Callable[[], datetime]) -> None:
        self._api = api
        self._now = now
        self._parts: dict[Ref, tuple[str, dict[str, int]]] = {}  # package -> its uid, digest -> ConfigMaps of it

    def published(self, package: CloacinaPackage, digest: str, size: int) -> None:
        """An inspection says that it published an archive of ``size`` bytes."""
        self._of(package)[digest] = part_count(size)

    def forget(self, package: Ref) -> None:
        """The package is gone."""
        self._parts.pop(package, None)

    async def count(self, package: CloacinaPackage, digest: str) -> int:
        """In how many ConfigMaps an archive is. Raises ArchiveMissing."""
        parts = self._of(package)
        if digest not in parts:
            name = archive_part_name(package.name, package.metadata.uid, digest, 0)
            try:
                parts[digest] = count(await metadata_of(self._api, package.metadata.namespace, name))
            except NotFound:
                raise ArchiveMissing(f"the archive {digest} is not beside the package any more") from None
        return parts[digest]

    async def has(self, package: CloacinaPackage, digest: str) -> bool:
        """Whether all of it is there now."""
        self._of(package).pop(digest, None)
        try:
            for number in range(1, await self.count(package, digest)):
                name = archive_part_name(package.name, package.metadata.uid, digest, number)
                await metadata_of(self._api, package.metadata.namespace, name)
        except (ArchiveMissing, NotFound):
            return False
        return True

    async def keep(self, package: CloacinaPackage, digests: Collection[str], *, spare_new: bool) -> None:
        """Delete all others. ``spare_new``: but for those of the last minute, of which we may not have heard yet."""
        path = _path(package.metadata.namespace)
        selector = f"{COMPONENT_LABEL}={Component.ARCHIVE.value},{PACKAGE_LABEL}={label_value(package.name)}"
        found, _ = await self._api.everything(path, {"labelSelector": selector}, NAMES_ONLY)
        for one in found:
            owners = {owner.get("uid") for owner in one["metadata"].get("ownerReferences", ())}
            age = self._now() - datetime.fromisoformat(one["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
            if spare_new and age < NEW:
                continue
            if package.metadata.uid in owners and digest_of(one) not in digests:
                self._of(package).pop(digest_of(one), None)
                body: dict[str, Any] = {"preconditions": {"uid": one["metadata"]["uid"]}}
                with suppress(NotFound, Conflict):
                    await self._api.request("DELETE", f"{path}/{one['metadata']['name']}", body=body)

    async def manifest(self, package: CloacinaPackage, digest: str) -> Manifest:
        """The manifest of an archive whose report it does not fit into. Raises ImportCrashed."""
        name = archive_manifest_name(package.name, package.metadata.uid, digest)
        try:
            found = await self._api.request("GET", f"{_path(package.metadata.namespace)}/{name}")
            return await asyncio.to_thread(parse_manifest, manifest_in(found, MANIFEST_LIMIT) or b"")
        except (NotFound, ManifestError, RecursionError):
            raise nonsense() from None

    def _of(self, package: CloacinaPackage) -> dict[str, int]:
        uid, parts = self._parts.get(package.ref, ("", {}))
        if uid != package.metadata.uid:
            parts = {}
            self._parts[package.ref] = (package.metadata.uid, parts)
        return parts


async def metadata_of(api: Api, namespace: str, name: str) -> Object:
    """Of a ConfigMap, without what it holds. Raises NotFound."""
    return await api.request("GET", f"{_path(namespace)}/{name}", accept=NAMES_ONLY_EVENTS)


async def versions_of(api: Api, namespace: str, name: str) -> list[str]:
    """The resource versions of the ConfigMaps of a source, as far as they are there; what they hold is not read."""
    versions: list[str] = []
    for number in range(SOURCE_PARTS):
        try:
            found = await metadata_of(api, namespace, source_part(name, number))
        except NotFound:
            break
        versions.append(str(found["metadata"]["resourceVersion"]))
    return versions


def _path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"
