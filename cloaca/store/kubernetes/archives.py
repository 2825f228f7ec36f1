"""Archives as ConfigMaps: how one is cut into parts that etcd takes, and put together and verified again. Pure."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

from cloaca.resources import names

PART_BYTES = 900 * 1024
"""Of one ConfigMap, which may have 1 MiB; base64 counts only on the way."""
PART_KEY = "part"
MANIFEST_KEY = "manifest"
DIGEST_ANNOTATION = "cloacina.io/archive-digest"
PARTS_ANNOTATION = "cloacina.io/archive-parts"


def digest_of(data: bytes) -> str:
    """``sha256:…`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def part_count(size: int) -> int:
    """How many ConfigMaps an archive of ``size`` bytes takes."""
    return max(1, -(-size // PART_BYTES))


def source_part(name: str, part: int) -> str:
    """The ConfigMap with part ``part`` of a source: the one that the package names, then ``<name>-1`` and on."""
    return name if part == 0 else f"{name}-{part}"


def pieces(data: bytes, digest: str, key: str) -> list[dict[str, Any]]:
    """``data`` as ConfigMaps that nobody has named yet; one at least."""
    cut = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)] or [b""]
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"annotations": {DIGEST_ANNOTATION: digest, PARTS_ANNOTATION: str(len(cut))}},
            "immutable": True,
            "binaryData": {key: base64.b64encode(piece).decode()},
        }
        for piece in cut
    ]


def package_parts(package: str, uid: str, namespace: str, data: bytes) -> list[dict[str, Any]]:
    """The ConfigMaps from which the pods of a package mount an archive; they go with the package."""
    digest = digest_of(data)
    cut = pieces(data, digest, PART_KEY)
    for number, piece in enumerate(cut):
        _own(piece, names.archive_part_name(package, uid, digest, number), package, uid, namespace, digest)
    return cut


def package_manifest(package: str, uid: str, namespace: str, digest: str, manifest: bytes) -> dict[str, Any]:
    """The ConfigMap with the manifest of an archive, compressed."""
    (whole,) = pieces(zlib.compress(manifest, 9), digest, MANIFEST_KEY)
    _own(whole, names.archive_manifest_name(package, uid, digest), package, uid, namespace, digest)
    return whole


def manifest_in(found: dict[str, Any], limit: int) -> bytes | None:
    """The manifest in what ``package_manifest`` made; None: it is none, or unpacks to more than ``limit``."""
    try:
        decompressor = zlib.decompressobj()
        packed = base64.b64decode((found.get("binaryData") or {})[MANIFEST_KEY], validate=True)
        plain = decompressor.decompress(packed, limit)
    except (KeyError, TypeError, ValueError, zlib.error):
        return None
    return None if decompressor.unconsumed_tail else plain


def _own(one: dict[str, Any], name: str, package: str, uid: str, namespace: str, digest: str) -> None:
    owner = {"apiVersion": "cloacina.io/v1alpha1", "kind": "CloacinaPackage", "name": package, "uid": uid}
    one["metadata"] |= {
        "name": name,
        "namespace": namespace,
        "labels": {
            "app.kubernetes.io/name": "cloacina",
            names.MANAGED_BY_LABEL: names.MANAGED_BY,
            names.COMPONENT_LABEL: "archive",
            names.PACKAGE_LABEL: names.label_value(package),
        },
        "ownerReferences": [owner],
    }
    one["metadata"]["annotations"][names.DIGEST_ANNOTATION] = digest


def count(first: dict[str, Any]) -> int:
    """How many parts there are, as the first one says."""
    said = (first["metadata"].get("annotations") or {}).get(PARTS_ANNOTATION, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 4 else 1


def of_pods(digest: str, found: Sequence[dict[str, Any]]) -> bytes | None:
    """The archive among the ConfigMaps that pods of a package mount; None: it is not there, or not whole."""
    ours = [one for one in found if (one["metadata"].get("annotations") or {}).get(names.DIGEST_ANNOTATION) == digest]
    ours.sort(key=lambda one: str(one["metadata"]["name"]))
    pieces = [(one.get("binaryData") or {}).get(PART_KEY) for one in ours]
    data = b"".join(base64.b64decode(piece) for piece in pieces if piece is not None)
    return data if digest_of(data) == digest else None
