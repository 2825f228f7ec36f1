"""The archive of a package as ConfigMaps beside it, which its spec names as its source: put, own, and clear away.

Never touches the package itself. A part is immutable and named by the archive's digest, so that a name never means
other bytes; the package owns its parts, so that they go with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cloaca.errors import AlreadyExists, CloacaError, Conflict, NotFound
from cloaca.resources import CloacinaPackage, owned_by
from cloaca.resources.names import COMPONENT_LABEL, PACKAGE_LABEL, label_value, object_name
from cloaca.resources.package import ConfigMapSource
from cloaca.store.kubernetes.api import NAMES_ONLY, Api, Object
from cloaca.store.kubernetes.archives import pieces, source_part
from cloaca.store.kubernetes.refusals import JSON_PATCH

SOURCE_COMPONENT = "source"
SOURCE_KEY = "package.cloacina"
LEFT_OVER = timedelta(hours=1)
"""Age at which a part that nobody names is what a deployment left that was killed, and not one that is under way."""
_STRICT = {"fieldValidation": "Strict"}


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """One archive on its way to one package."""

    package: str
    namespace: str
    digest: str
    data: bytes

    @property
    def source(self) -> ConfigMapSource:
        """What the spec of the package says of it."""
        name = f"{object_name(self.package, 40)}-source-{self.digest.removeprefix('sha256:')[:12]}"
        return ConfigMapSource(name=name, key=SOURCE_KEY)

    def parts(self) -> list[Object]:
        """The ConfigMaps, without an owner; one at least."""
        cut = pieces(self.data, self.digest, SOURCE_KEY)
        labels = {PACKAGE_LABEL: label_value(self.package), COMPONENT_LABEL: SOURCE_COMPONENT}
        for number, part in enumerate(cut):
            part["metadata"] |= {
                "name": source_part(self.source.name, number),
                "namespace": self.namespace,
                "labels": labels,
            }
        return cut


async def put(api: Api, shipment: Shipment, owner: CloacinaPackage | None) -> int:
    """Have every part there, owned by ``owner`` if there is one; returns how many. Idempotent.

    The first part, which says how many there are, is made last. Raises CloacaError where a ConfigMap of such a name
    holds something else.
    """
    parts = shipment.parts()
    there = {one["metadata"]["name"]: one for one in await _listed(api, shipment.namespace, shipment.package)}
    for part in reversed(parts):
        known = there.get(part["metadata"]["name"])
        if known is not None and not _usable(known["metadata"], part["metadata"], owner):
            await _remove(api, shipment.namespace, part["metadata"]["name"], known["metadata"]["uid"])
            known = None
        if known is None:
            await _make(api, part, owner)
        elif owner is not None and not known["metadata"].get("ownerReferences"):
            await _own(api, part, owner)
    return len(parts)


async def clear(api: Api, shipment: Shipment, replaced: ConfigMapSource | None) -> None:
    """Remove the parts of the source that ``shipment`` took the place of, and what killed deployments left."""
    listed = await _listed(api, shipment.namespace, shipment.package)
    ours = {part["metadata"]["name"] for part in shipment.parts()}
    now = max((_made(one) for one in listed if one["metadata"]["name"] in ours), default=None)
    for one in listed:
        name = one["metadata"]["name"]
        if name in ours:
            continue
        was_named = replaced is not None and (name == replaced.name or _is_part(name, replaced.name))
        if was_named or (now is not None and now - _made(one) > LEFT_OVER):
            await _remove(api, shipment.namespace, name, one["metadata"]["uid"])


def _usable(known: Object, wanted: Object, owner: CloacinaPackage | None) -> bool:
    """Whether a part that is there is of the same bytes, and no package that was deleted takes it along."""
    mine = None if owner is None else owner.metadata.uid
    stays = all(reference["uid"] == mine for reference in known.get("ownerReferences") or ())
    return stays and known.get("annotations") == wanted["annotations"]


async def _listed(api: Api, namespace: str, package: str) -> Sequence[Object]:
    """The parts of all sources of the package, without their bytes."""
    selector = f"{COMPONENT_LABEL}={SOURCE_COMPONENT},{PACKAGE_LABEL}={label_value(package)}"
    items, _ = await api.everything(_path(namespace), {"labelSelector": selector}, NAMES_ONLY)
    return items


async def _make(api: Api, part: Object, owner: CloacinaPackage | None) -> None:
    namespace, name = part["metadata"]["namespace"], part["metadata"]["name"]
    if owner is not None:
        part["metadata"]["ownerReferences"] = [_reference(owner)]
    try:
        await api.request("POST", _path(namespace), body=part, params=_STRICT)
    except AlreadyExists as error:
        found = await api.request("GET", f"{_path(namespace)}/{name}")
        if found.get("binaryData") != part["binaryData"]:
            raise CloacaError(f"the ConfigMap {namespace}/{name} exists and holds something else: remove it") from error
        if owner is not None and not found["metadata"].get("ownerReferences"):
            await _own(api, part, owner)


async def _own(api: Api, part: Object, owner: CloacinaPackage) -> None:
    path = f"{_path(part['metadata']['namespace'])}/{part['metadata']['name']}"
    patch = [{"op": "add", "path": "/metadata/ownerReferences", "value": [_reference(owner)]}]
    try:
        await api.request("PATCH", path, body=patch, content_type=JSON_PATCH)
    except NotFound:  # somebody cleared it away meanwhile
        await _make(api, part, owner)


async def _remove(api: Api, namespace: str, name: str, uid: str) -> None:
    try:
        await api.request("DELETE", f"{_path(namespace)}/{name}", body={"preconditions": {"uid": uid}})
    except (NotFound, Conflict):  # Conflict: another one by now
        return


def _is_part(name: str, first: str) -> bool:
    return name.startswith(f"{first}-") and name.removeprefix(f"{first}-").isdigit()


def _reference(owner: CloacinaPackage) -> Any:
    return owned_by(owner).to_json_dict() | {"controller": False}  # the operator does not look after it


def _made(obj: Object) -> datetime:
    return datetime.fromisoformat(obj["metadata"]["creationTimestamp"].replace("Z", "+00:00"))


def _path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"
