"""Archives as ConfigMaps: how one is cut into parts that etcd takes, and put together and verified again. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

from cloaca.errors import StoreUnavailable
from cloaca.resources import names

PART_BYTES = 900 * 1024
"""Of one ConfigMap, which may have 1 MiB; base64 counts only on the way."""
KEY = "data"
PART_LABEL = "cloacina.io/archive-part"
DIGEST_ANNOTATION = "cloacina.io/archive-digest"
PARTS_ANNOTATION = "cloacina.io/archive-parts"

_SHOWN = 40  # characters of the digest in a name: 160 bits, and whoever reads verifies all of them


def digest_of(data: bytes) -> str:
    """``sha256:…`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def part_name(digest: str, part: int) -> str:
    """The ConfigMap that holds part ``part``, from 0."""
    return f"cloacina-archive-{digest.removeprefix('sha256:')[:_SHOWN]}-{part}"


def source_part(name: str, part: int) -> str:
    """The ConfigMap with part ``part`` of a source: the one that the package names, then ``<name>-1`` and on."""
    return name if part == 0 else f"{name}-{part}"


def parts(data: bytes) -> list[dict[str, Any]]:
    """The ConfigMaps of the store that hold ``data``; one at least."""
    digest = digest_of(data)
    cut = pieces(data, digest, KEY)
    for number, piece in enumerate(cut):
        piece["metadata"] |= {"name": part_name(digest, number), "labels": {PART_LABEL: str(number)}}
    return cut


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


def count(first: dict[str, Any]) -> int:
    """How many parts there are, as the first one says."""
    said = (first["metadata"].get("annotations") or {}).get(PARTS_ANNOTATION, "")
    return int(said) if said.isdigit() else 1


def of_pods(digest: str, found: Sequence[dict[str, Any]]) -> bytes | None:
    """The archive among the ConfigMaps that pods of a package mount; None: it is not there, or not whole."""
    ours = [one for one in found if (one["metadata"].get("annotations") or {}).get(names.DIGEST_ANNOTATION) == digest]
    ours.sort(key=lambda one: str(one["metadata"]["name"]))
    data = b"".join(base64.b64decode(piece) for one in ours for piece in (one.get("binaryData") or {}).values())
    return data if digest_of(data) == digest else None


def joined(digest: str, found: Sequence[dict[str, Any]]) -> bytes:
    """The archive, from its parts in order. Raises StoreUnavailable where they are not what was put there."""
    try:
        data = b"".join(base64.b64decode((part.get("binaryData") or {}).get(KEY, ""), validate=True) for part in found)
    except binascii.Error:
        data = None
    if data is None or digest_of(data) != digest:
        listed = ", ".join(f"{part['metadata']['namespace']}/{part['metadata']['name']}" for part in found)
        raise StoreUnavailable(f"the archive {digest} is damaged: delete the ConfigMaps {listed}: it is fetched anew")
    return data
