"""Read resources from YAML or JSON files and write them: every fault at once, each with line, object and field."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import ValidationError

from cloaca.errors import Invalid
from cloaca.resources import DEFAULT_NAMESPACE, KINDS, CloacinaPackage, Ref, Resource, Trigger, WorkflowRun
from cloaca.resources.meta import PATTERNS, Schema
from cloaca.resources.names import OBJECT_NAME_LIMIT, object_name
from cloaca.resources.plain import Document, Fault, Path, read, write, written
from cloaca.resources.ref import API_VERSION
from cloaca.resources.run import PACKAGE_NEEDED

CONTEXT_LIMIT = 256 * 1024
SHOWN = 60  # characters of a wrong value that a message repeats

_Said = tuple[Path, str]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "labels",
    "annotations", "ownerReferences", "deletionGracePeriodSeconds", "finalizers", "managedFields", "selfLink",
)  # fmt: skip
_TYPES = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "dict_type": "an object",
    "model_type": "an object",
    "tuple_type": "a list",
    "datetime_type": "a time",
}
_KINDS: dict[str, type[Resource[Any, Any]]] = {kind.KIND: kind for kind in KINDS}


def load_documents(
    text: str, source: str = "file.yaml", namespace: str = DEFAULT_NAMESPACE
) -> list[Resource[Any, Any]]:
    """Every resource in ``text``, in order; several documents and ``kind: List`` are taken apart.

    A status in it is ignored, as kubectl does. ``namespace`` is for objects that name none, ``source`` for messages.
    Raises Invalid with every fault, a line each.
    """
    loaded: list[Resource[Any, Any]] = []
    faults: list[tuple[int, str]] = []
    places: dict[Ref, int] = {}
    for number, document in enumerate(read(text), 1):
        for at, value in _objects(document):
            line, who = document.line_of(at), _who(value, namespace, number)
            broken = [fault for fault in document.faults if fault.path[: len(at)] == at]
            resource, said = _checked(value, namespace) if value is not None else (None, [])
            said = [(path, message) for path, message in said if not _follows((*at, *path), broken)]
            for where, path, message in (
                *((fault.line, fault.path[len(at) :], fault.message) for fault in broken),
                *((document.line_of((*at, *path)), path, message) for path, message in said),
            ):
                faults.append((where, ": ".join(part for part in (who, written(path), message) if part)))
            if resource is None:
                continue
            if resource.ref in places:
                faults.append(
                    (line, f"{who}: declared twice, first on line {places[resource.ref]}: remove one of them")
                )
            places.setdefault(resource.ref, line)
            loaded.append(resource)
    if faults:
        raise Invalid("\n".join(f"{source}:{line}: {message}" for line, message in sorted(faults, key=lambda f: f[0])))
    return loaded


def _follows(path: Path, broken: Iterable[Fault]) -> bool:
    """Whether what is at ``path`` could not be read in the first place."""
    return any(path[: len(fault.path)] == fault.path for fault in broken if fault.path)


def to_yaml(*resources: Resource[Any, Any]) -> str:
    """``resources`` as YAML documents that ``load_documents`` and kubectl read; what is unset is left out."""
    return "---\n".join(write(_tidy(resource.to_json_dict())) for resource in resources)


def missing_references(resources: Iterable[Resource[Any, Any]], exists: Callable[[Ref], bool]) -> list[str]:
    """What ``resources`` refer to and is neither among them nor there already, a sentence each."""
    resources = tuple(resources)
    declared = {resource.ref for resource in resources}
    return [
        f"{resource.ref}: {path}: there is no {wanted.kind} {wanted.name!r} in namespace {wanted.namespace!r}; "
        f"apply it first{_hint(wanted.name, [ref.name for ref in declared if ref.kind == wanted.kind])}"
        for resource in resources
        for path, wanted in _references(resource)
        if wanted not in declared and not exists(wanted)
    ]


def _references(resource: Resource[Any, Any]) -> Iterator[tuple[str, Ref]]:
    namespace = resource.metadata.namespace
    if isinstance(resource, (Trigger, WorkflowRun)) and resource.spec.package_ref is not None:
        yield "spec.packageRef.name", Ref(CloacinaPackage.KIND, namespace, resource.spec.package_ref.name)
    if isinstance(resource, WorkflowRun) and resource.spec.trigger_ref is not None:
        yield "spec.triggerRef.name", Ref(Trigger.KIND, namespace, resource.spec.trigger_ref.name)
    if isinstance(resource, WorkflowRun) and resource.spec.replay_of is not None:
        yield "spec.replayOf", Ref(WorkflowRun.KIND, namespace, resource.spec.replay_of)


def _tidy(document: dict[str, Any]) -> dict[str, Any]:
    """Without the metadata that the store has not filled in yet."""
    metadata = {key: value for key, value in document["metadata"].items() if value not in ("", 0, {}, [])}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], **document, "metadata": metadata}


def _objects(document: Document) -> Iterator[tuple[Path, Any]]:
    """The objects of a document and where they stand in it: itself, or the items of a ``kind: List``."""
    value = document.value
    if isinstance(value, dict) and value.get("kind") == "List" and isinstance(value.get("items"), list):
        yield from ((("items", index), item) for index, item in enumerate(value["items"]))
    elif value is not None or document.faults:
        yield (), value


def _checked(value: Any, namespace: str) -> tuple[Resource[Any, Any] | None, list[_Said]]:
    """The resource that ``value`` is, or what is wrong with it."""
    if not isinstance(value, dict):
        return None, [((), f"must be an object with apiVersion and kind, not {_shown(value)}")]
    kind, faults = _kind(value)
    if kind is None:
        return None, faults
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        value = {**value, "metadata": {"namespace": namespace, **metadata}}
    faults += _metadata_faults(metadata)
    resource: Resource[Any, Any] | None = None
    try:
        given = {key: part for key, part in value.items() if key != "status"}
        resource = kind.model_validate_json(json.dumps(given), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        faults += [_translated(kind, one) for one in error.errors(include_url=False)]
    spec = value.get("spec")
    if kind is WorkflowRun and isinstance(spec, dict):
        faults += _run_faults(spec)
    return (None if faults else resource), faults


def _kind(value: Mapping[str, Any]) -> tuple[type[Resource[Any, Any]] | None, list[_Said]]:
    version, name = value.get("apiVersion"), value.get("kind")
    if not isinstance(name, str) or not name:
        return None, [(("kind",), f"missing: one of {', '.join(_KINDS)}")]
    if isinstance(version, str) and version.partition("/")[0] != API_VERSION.partition("/")[0]:
        return None, [(("kind",), f"{name!r} of {version!r} is none of ours ({', '.join(_KINDS)}): use kubectl for it")]
    if name not in _KINDS:
        return None, [(("kind",), f"{name!r} is not known: one of {', '.join(_KINDS)}{_hint(name, _KINDS)}")]
    if version != API_VERSION:
        return None, [(("apiVersion",), f"must be {API_VERSION}, not {_shown(version)}")]
    return _KINDS[name], []


def _metadata_faults(metadata: Any) -> list[_Said]:
    """What pydantic does not look at: names, labels, and fields that no API server knows."""
    if not isinstance(metadata, dict):
        return [(("metadata", "name"), "missing")] if metadata is None else []
    faults: list[_Said] = [
        (("metadata", key), f"unknown field{_hint(key, _METADATA)}") for key in metadata if key not in _METADATA
    ]
    name = metadata.get("name")
    if name is None:
        faults.append((("metadata", "name"), "missing"))
    elif isinstance(name, str) and not (_NAME.fullmatch(name) and len(name) <= OBJECT_NAME_LIMIT):
        better = f"; {object_name(name)!r} would do" if name else ""
        allowed = f"at most {OBJECT_NAME_LIMIT} lower case letters, digits and '-'"
        faults.append((("metadata", "name"), f"must be {allowed}, not {_shown(name)}{better}"))
    labels = metadata.get("labels")
    for key, label in labels.items() if isinstance(labels, dict) else ():
        if isinstance(label, str) and not _LABEL_VALUE.fullmatch(label):
            allowed = "at most 63 letters, digits, '-', '_' and '.', with a letter or digit at each end"
            faults.append((("metadata", "labels", key), f"must be {allowed}, not {_shown(label)}"))
    return faults


def _run_faults(spec: Mapping[str, Any]) -> list[_Said]:
    faults: list[_Said] = []
    if spec.get("packageRef") is None:
        faults.append((("spec",), PACKAGE_NEEDED))
    size = len(json.dumps(spec.get("context"), ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))
    if size > CONTEXT_LIMIT:
        message = f"{size} bytes as JSON, more than {CONTEXT_LIMIT}: store the data elsewhere and pass a reference"
        faults.append((("spec", "context"), message))
    return faults


def _translated(kind: type[Schema], error: Any) -> _Said:
    """One of pydantic's errors in our words."""
    path: Path = tuple(error["loc"])
    context, given = error.get("ctx", {}), _shown(error["input"])
    match error["type"]:
        case "missing":
            return path, "missing"
        case "extra_forbidden":
            return path, f"unknown field{_hint(str(path[-1]), _fields(kind, path[:-1]))}"
        case "string_pattern_mismatch":
            return path, f"must be {PATTERNS.get(context['pattern'], context['pattern'])}, not {given}"
        case "enum" | "literal_error":
            allowed = re.findall(r"'([^']*)'", context["expected"])
            return path, f"must be one of {', '.join(allowed)}, not {given}{_hint(str(error['input']), allowed)}"
        case "greater_than_equal":
            return path, f"must be at least {context['ge']}, not {given}"
        case "string_too_short":
            return path, "must not be empty"
        case "string_too_long":
            return path, f"must be at most {context['max_length']} characters, not {len(error['input'])}"
        case "too_long":
            return path, f"must have at most {context['max_length']} entries, not {len(error['input'])}"
        case "value_error":
            return path, str(context["error"])
        case known if known in _TYPES:
            return path, f"must be {_TYPES[known]}, not {given}"
    return path, f"{error['msg'][:1].lower()}{error['msg'][1:]}, not {given}"


def _fields(kind: type[Schema], path: Path) -> list[str]:
    """The names of the fields that the object at ``path`` may have."""
    owner: type[Schema] | None = kind
    for step in path:
        if isinstance(step, int) or owner is None:
            continue
        found = (info.annotation for name, info in owner.model_fields.items() if step in (name, info.alias))
        owner = next((schema for annotation in found for schema in _schemas(annotation)), None)
    return [info.alias or name for name, info in owner.model_fields.items()] if owner else []


def _schemas(annotation: Any) -> Iterator[type[Schema]]:
    """The schemas inside an annotation, such as ``tuple[X, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Schema):
        yield annotation
    for inner in get_args(annotation):
        yield from _schemas(inner)


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), {one.lower(): one for one in known}, n=1, cutoff=0.7)
    found = next((one for one in known if close and one.lower() == close[0]), None)
    return f"; did you mean {found!r}?" if found else ""


def _who(value: Any, namespace: str, number: int) -> str:
    """The object as messages name it: its kind and name where it has them, else which document it is."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if isinstance(metadata, dict) and metadata.get("name") and value.get("kind"):
        return f"{value['kind']} {metadata.get('namespace') or namespace}/{metadata['name']}"
    return f"document {number}"


def _shown(value: Any) -> str:
    """What was given, short, as JSON has it and with its type where that is the point."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
    names = ((bool, ""), (str, "the text "), ((int, float), "the number "), (list, "the list "), (dict, "the object "))
    return next((f"{said}{text}" for types, said in names if isinstance(value, types)), text)
