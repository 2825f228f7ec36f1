"""Keep objects in memory, as the watch and our own writes show them. Asks no server.

They are kept as JSON text, a fraction of what objects take, and read when somebody wants one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from cloaca.resources.ref import Ref
from cloaca.store.kubernetes.api import Object


class _Kept(NamedTuple):
    version: int
    uid: str
    text: bytes


class Cache:
    """Objects under their reference. An older sight never replaces a newer one."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[Ref, _Kept]] = {}
        self.newest = 0  # the highest resource version that was seen
        self._gone: dict[str, Ref] = {}  # uids that we deleted and whose end the watch has not told yet

    def get(self, ref: Ref) -> bytes | None:
        """The object as JSON text."""
        kept = self._of(ref.kind).get(ref)
        return None if kept is None else kept.text

    def uid(self, ref: Ref) -> str | None:
        """Which object of that name it is; None: it is not known."""
        kept = self._of(ref.kind).get(ref)
        return None if kept is None else kept.uid

    def list(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> list[bytes]:
        """Every object of the kind that carries all of ``labels``, by namespace and name."""
        found = [
            ref
            for ref, kept in self._of(kind).items()
            if namespace in (None, ref.namespace) and (not labels or _has(kept.text, labels))
        ]
        return [self._of(kind)[ref].text for ref in sorted(found)]

    def saw(self, ref: Ref, obj: Object, gone: bool) -> None:
        """What the watch, or the answer to a write, says of an object."""
        metadata = obj["metadata"]
        version, uid = version_of(obj), metadata.get("uid", "")
        self.newest = max(self.newest, version)
        kept = self._of(ref.kind).get(ref)
        if gone:
            self._gone.pop(uid, None)
            if kept is not None and (kept.version <= version or kept.uid == uid):
                del self._of(ref.kind)[ref]
            return
        if uid in self._gone or (kept is not None and kept.version >= version):
            return
        metadata.pop("managedFields", None)
        text = json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode()
        self._of(ref.kind)[ref] = _Kept(version, uid, text)

    def deleted(self, ref: Ref, uid: str) -> None:
        """We deleted it: what the watch still tells of it is the past."""
        kept = self._of(ref.kind).get(ref)
        if kept is not None and kept.uid == uid:
            del self._of(ref.kind)[ref]
            self._gone[uid] = ref

    def _of(self, kind: str) -> dict[Ref, _Kept]:
        return self._kinds.setdefault(kind, {})


def _has(text: bytes, labels: Mapping[str, str]) -> bool:
    """Whether the object carries all of ``labels``. Most do not even mention them, which is soon seen."""
    if not all(f'"{key}":"{value}"'.encode() in text for key, value in labels.items()):
        return False
    carried: dict[str, str] = json.loads(text)["metadata"].get("labels") or {}
    return labels.items() <= carried.items()


def version_of(obj: Object) -> int:
    """Opaque by contract, and comparable: Kubernetes says so since 1.35, and every API server on etcd always did."""
    return int(obj["metadata"]["resourceVersion"])
