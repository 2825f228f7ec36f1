"""Objects as rows and back, and what a store refuses to keep. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from cloaca.errors import Invalid, Unreadable
from cloaca.resources.meta import DIGEST, Resource

R = TypeVar("R", bound=Resource[Any, Any])

_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"(?=.{{1,253}}(/|$)){_PART}(\.{_PART})*"
_NAME = re.compile(_SUBDOMAIN)
_NAMESPACE = re.compile(rf"(?=.{{1,63}}$){_PART}")
_KEY = re.compile(rf"({_SUBDOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_DIGEST = re.compile(DIGEST)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

_FAULTS = 5  # of one object that a message lists

_sorted_json = json.JSONEncoder(sort_keys=True).encode


class Row(NamedTuple):
    """The columns of an object, as ``get`` and ``list`` select them."""

    uid: str
    namespace: str
    name: str
    resource_version: int
    generation: int
    created: str
    labels: str
    annotations: str
    owners: str
    spec: str
    status: str


def from_row(kind: type[R], row: Row) -> R:
    """The object of a row; as ``from_json``."""
    return from_json(kind, row_json(row))


def row_json(row: Row) -> str:
    """The object of a row as JSON."""
    uid, namespace, name, resource_version, generation, created, labels, annotations, owners, spec, status = row
    return (  # the names need no escapes: they were checked when the object was created
        f'{{"metadata":{{"name":"{name}","namespace":"{namespace}","uid":"{uid}",'
        f'"resourceVersion":"{resource_version}","generation":{generation},"creationTimestamp":"{created}",'
        f'"labels":{labels},"annotations":{annotations},"ownerReferences":{owners}}},"spec":{spec},"status":{status}}}'
    )


def from_json(kind: type[R], text: str | bytes) -> R:
    """The object that ``text`` is. Fields that a newer version wrote are kept aside and written back with it.

    Raises Unreadable if this version cannot read it even so.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        pass
    try:
        return kind.model_validate_json(text, extra="allow")
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)]
        said = "; ".join(faults[:_FAULTS]) + (f"; and {len(faults) - _FAULTS} more" if len(faults) > _FAULTS else "")
        raise Unreadable(
            f"{kind.KIND} {_named(text)} cannot be read by this version: {said}: upgrade cloacina, correct the object, "
            "or delete it"
        ) from error


def _named(text: str | bytes) -> str:
    try:
        metadata = json.loads(text)["metadata"]
    except (ValueError, RecursionError):
        return "(of unknown name)"
    return f"{metadata.get('namespace')}/{metadata.get('name')}"


def spec_json(obj: Resource[Any, Any]) -> str:
    """The spec as it is stored. Raises Invalid where it holds what JSON cannot."""
    return _part_json(obj, "spec")


def status_json(obj: Resource[Any, Any]) -> str:
    """The status as it is stored. Raises Invalid where it holds what JSON cannot."""
    return _part_json(obj, "status")


def metadata_columns(obj: Resource[Any, Any]) -> dict[str, str]:
    """The parts of metadata that whoever writes decides."""
    metadata = obj.metadata
    owners = metadata.owner_references
    return {
        "labels": _pairs_json(tuple(metadata.labels.items())) if metadata.labels else "{}",
        "annotations": _sorted_json(metadata.annotations) if metadata.annotations else "{}",
        "owners": _sorted_json([owner.to_json_dict() for owner in owners]) if owners else "[]",
    }


@lru_cache(maxsize=256)  # labels are the same for many objects
def _pairs_json(pairs: tuple[tuple[str, str], ...]) -> str:
    return _sorted_json(dict(pairs))


def written(obj: R, row: Row) -> R:
    """What ``obj`` is after its status was written: ``row``, at the price of a copy where the caller holds the rest."""
    metadata = obj.metadata
    version = str(row.resource_version)
    held = (metadata.uid, metadata.generation, *metadata_columns(obj).values(), spec_json(obj))
    if not metadata.resource_version or held != (row.uid, row.generation, *row[6:10]):
        return from_row(type(obj), row)
    if metadata.resource_version == version:
        return obj
    return obj.model_copy(update={"metadata": metadata.model_copy(update={"resource_version": version})})


def same_json(one: str, other: str) -> bool:
    """Whether two texts say the same, whatever the order of their keys; 1, 1.0 and true are three things."""
    return one == other or _sorted_json(json.loads(one)) == _sorted_json(json.loads(other))


def _part_json(obj: Resource[Any, Any], part: str) -> str:
    model: BaseModel = getattr(obj, part)
    try:
        text = model.model_dump_json(by_alias=True, exclude_none=True)
    except PydanticSerializationError as error:
        raise Invalid(f"{obj.ref}: {part}: {error}: store only what JSON can hold") from error
    if "null" in text:  # which is also what becomes of NaN
        faults = [f"{path} is {value}" for path, value in _not_numbers(model.model_dump(by_alias=True), part)]
        if faults:
            raise Invalid(f"{obj.ref}: {'; '.join(faults)}: JSON has no such number: store null or a text")
    if model.__pydantic_extra__ is None:
        return text
    return json.dumps(_with_unknown(model, json.loads(text)), separators=(",", ":"))


def _not_numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    """Every NaN and infinity in ``value``, with where it stands."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_numbers(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _not_numbers(item, f"{path}[{index}]")


def _with_unknown(value: Any, document: Any) -> Any:
    """``document``, the JSON of ``value``, with the fields of a newer version that were read with it."""
    if isinstance(value, BaseModel):
        for field, info in type(value).model_fields.items():
            alias = info.alias or field
            if alias in document:
                _with_unknown(getattr(value, field), document[alias])
        document |= value.__pydantic_extra__ or {}
    elif isinstance(value, tuple):
        for item, part in zip(value, document, strict=True):
            _with_unknown(item, part)
    return document


def may_exist(
    *,
    name: str | None = None,
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    digest: str | None = None,
) -> bool:
    """Whether an object may be called so, or carry those labels, and an archive have that digest; None: not asked.

    Where not, no store need be asked.
    """
    return (
        (name is None or _NAME.fullmatch(name) is not None)
        and (digest is None or _DIGEST.fullmatch(digest) is not None)
        and (namespace is None or _NAMESPACE.fullmatch(namespace) is not None)
        and all(_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value) for key, value in (labels or {}).items())
    )


@lru_cache(maxsize=256)
def _are_valid(namespace: str, labels: tuple[tuple[str, str], ...], annotations: tuple[str, ...]) -> bool:
    """Whether these are, which are the same for many objects."""
    return may_exist(namespace=namespace, labels=dict(labels)) and all(map(_KEY.fullmatch, annotations))


def check(obj: Resource[Any, Any]) -> None:
    """Raise Invalid, with every fault and its path, unless names, labels and annotations are as Kubernetes wants."""
    metadata = obj.metadata
    if _NAME.fullmatch(metadata.name) and _are_valid(
        metadata.namespace, tuple(metadata.labels.items()), tuple(metadata.annotations)
    ):
        return
    faults = []
    if not _NAME.fullmatch(metadata.name):
        faults.append(
            f"metadata.name: {metadata.name!r} is not lower case letters, digits and '-', in parts between single '.'"
        )
    if not _NAMESPACE.fullmatch(metadata.namespace):
        faults.append(f"metadata.namespace: {metadata.namespace!r} is not up to 63 lower case letters, digits and '-'")
    for field, keyed in (("labels", metadata.labels), ("annotations", metadata.annotations)):
        faults += [f"metadata.{field}: the key {key!r} is not valid" for key in keyed if not _KEY.fullmatch(key)]
    for key, value in metadata.labels.items():
        if not _LABEL_VALUE.fullmatch(value):
            faults.append(f"metadata.labels.{key}: {value!r} is not up to 63 letters, digits, '-', '_' and '.'")
    if faults:
        raise Invalid(f"{obj.ref}: {'; '.join(faults)}: write it as Kubernetes wants it")
