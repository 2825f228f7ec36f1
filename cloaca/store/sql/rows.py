"""Objects as rows and back. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from cloaca.errors import Invalid
from cloaca.resources.meta import Resource

R = TypeVar("R", bound=Resource[Any, Any])

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9][-a-z0-9.]{0,252}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def from_row(kind: type[R], row: Sequence[Any]) -> R:
    """The object of a row as ``get`` and ``list`` select it."""
    uid, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status = row
    metadata = (
        f'{{"name":{json.dumps(name)},"namespace":{json.dumps(namespace)},"uid":"{uid}",'
        f'"resourceVersion":"{resource_version}","generation":{generation},"creationTimestamp":"{created}",'
        f'"labels":{labels},"annotations":{annotations},"ownerReferences":{owners}}}'
    )
    return kind.model_validate_json(f'{{"metadata":{metadata},"spec":{spec},"status":{status}}}')


def spec_json(obj: Resource[Any, Any]) -> str:
    """The spec as it is stored."""
    text: str = obj.spec.model_dump_json(by_alias=True, exclude_none=True)
    return text


def status_json(obj: Resource[Any, Any]) -> str:
    """The status as it is stored."""
    text: str = obj.status.model_dump_json(by_alias=True, exclude_none=True)
    return text


def metadata_columns(obj: Resource[Any, Any]) -> dict[str, str]:
    """The parts of metadata that whoever writes decides."""
    metadata = obj.metadata
    return {
        "labels": json.dumps(metadata.labels, sort_keys=True),
        "annotations": json.dumps(metadata.annotations, sort_keys=True),
        "owners": json.dumps([owner.to_json_dict() for owner in metadata.owner_references]),
    }


def check(obj: Resource[Any, Any]) -> None:
    """Raise Invalid, with every fault and its path, unless name, namespace and labels are as Kubernetes wants them."""
    metadata = obj.metadata
    faults = []
    if not _NAME.fullmatch(metadata.name):
        faults.append(f"metadata.name: {metadata.name!r} is not lower-case letters, digits, '-' and '.'")
    if not _NAMESPACE.fullmatch(metadata.namespace):
        faults.append(f"metadata.namespace: {metadata.namespace!r} is not lower-case letters, digits and '-'")
    faults += _label_faults(metadata.labels)
    if faults:
        raise Invalid(f"{obj.ref}: " + "; ".join(faults))


def _label_faults(labels: Mapping[str, str]) -> list[str]:
    faults = [f"metadata.labels: the key {key!r} is not valid" for key in labels if not _LABEL_KEY.fullmatch(key)]
    for key, value in labels.items():
        if not _LABEL_VALUE.fullmatch(value):
            faults.append(f"metadata.labels.{key}: {value!r} is not up to 63 letters, digits, '-', '_' and '.'")
    return faults
