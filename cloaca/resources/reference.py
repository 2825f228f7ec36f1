"""Write the reference page of the kinds from their types: every field, condition, reason and column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cloaca.resources import STORED_KINDS, Resource
from cloaca.resources.conditions import CONDITIONS
from cloaca.resources.crds import CATEGORIES, object_schema
from cloaca.resources.fielddocs import class_doc
from cloaca.resources.openapi import PRESERVE, RULES, Node
from cloaca.resources.ref import API_VERSION

INTRODUCTION = f"""\
<!-- Written by `make crds` from the types in cloaca/resources; edit those. -->

# Resources

The kinds of `{API_VERSION}`, all namespaced, all in the category `{CATEGORIES[0]}` (`kubectl get {CATEGORIES[0]}`).
A person writes `spec`; only programs write `status`. The same objects work in a cluster (`kubectl apply -f`) and on a
laptop (`cloaca apply -f`); what is refused there is refused here. Samples: `manifests/samples/`.
"""


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([INTRODUCTION, *(line for kind in STORED_KINDS for line in _kind(kind))])


def _kind(kind: type[Resource[Any, Any]]) -> Iterator[str]:
    schema = object_schema(kind)
    yield f"## {kind.KIND}"
    yield ""
    yield f"{class_doc(kind)} Short name: {', '.join(f'`{name}`' for name in kind.SHORT_NAMES)}."
    yield ""
    for part in ("spec", "status"):
        yield f"### {kind.KIND} {part}"
        yield ""
        yield schema["properties"][part]["description"]
        yield ""
        yield from _table(("Field", "Type", "Default", "Meaning"), _fields(part, schema["properties"][part]))
    rules = list(_rules("", schema))
    if rules:
        yield f"### {kind.KIND} rules"
        yield ""
        yield from (f"- {rule}" for rule in rules)
        yield ""
    if kind.KIND in CONDITIONS:
        yield f"### {kind.KIND} conditions"
        yield ""
    for condition in CONDITIONS.get(kind.KIND, ()):
        yield f"**{condition}** (good: {condition.good.value}): {condition.meaning}"
        yield ""
        yield from _table(("Reason", "Meaning"), ((f"`{reason}`", reason.meaning) for reason in condition.reasons))
    yield f"### {kind.KIND} columns"
    yield ""
    columns = (
        (column.header, f"`{column.path}`".replace("|", "\\|"), "wide" if column.priority else "", column.description)
        for column in kind.COLUMNS
    )
    yield from _table(("Column", "Path", "Shown", "Meaning"), columns)
    for path in kind.SELECTABLE:
        field = path.removeprefix(".")
        asked = f"kubectl get {kind.SHORT_NAMES[0]} --field-selector {field}=NAME"
        yield f"Kubernetes 1.31 and newer selects by `{field}`: `{asked}`."
        yield ""


def _fields(path: str, node: Node) -> Iterator[tuple[str, str, str, str]]:
    """The fields under ``node``, each before its own."""
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        below = f"{path}.{name}"
        yield f"`{below}`", _type(child), _default(child, name in required), child.get("description", "")
        yield from _fields(below, child)
        if child["type"] == "array":
            yield from _fields(f"{below}[]", child["items"])
        if "additionalProperties" in child:
            yield from _fields(f"{below}.*", child["additionalProperties"])


def _type(node: Node) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if "additionalProperties" in node:
        return f"map to {_type(node['additionalProperties'])}"
    if node.get(PRESERVE):
        return "any object"
    return "time" if node.get("format") == "date-time" else str(node["type"])


def _default(node: Node, required: bool) -> str:
    if required:
        return "required"
    default = node.get("default")
    if default is None or default == {}:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _rules(path: str, node: Node) -> Iterator[str]:
    """What the API server checks beyond types, in words."""
    for rule in node.get(RULES, ()):
        yield f"`{path}`: {rule['message']}" if path else rule["message"]
    for name, child in node.get("properties", {}).items():
        yield from _rules(f"{path}.{name}" if path else name, child)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(cell.strip() for cell in row)} |"
    yield ""
