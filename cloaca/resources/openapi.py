"""Turn a pydantic type into a structural OpenAPI v3 schema, the form that a CustomResourceDefinition takes.

Structural means: every node states its type, nothing is referenced, nullable or closed; what is unset is left out.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import Any

from cloaca.resources.fielddocs import class_doc, field_docs
from cloaca.resources.meta import DATE_TIME, PATTERNS, Schema

Node = dict[str, Any]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
RULES = "x-kubernetes-validations"
_COPIED = (
    "format", "enum", "default", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "maxProperties", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", PRESERVE, RULES,
)  # fmt: skip
_UNDERSTOOD = {*_COPIED, "type", "title", "description", "properties", "required", "items", "additionalProperties",
               "const", "anyOf", "$ref"}  # fmt: skip


def structural(model: type[Schema]) -> Node:
    """The schema of ``model``, with the docstrings under its fields as descriptions."""
    raw = model.model_json_schema(by_alias=True)
    return _Walk(raw.pop("$defs", {})).node({**raw, "description": class_doc(model)}, model)


class _Walk:
    """One walk over what pydantic says, with its definitions at hand."""

    def __init__(self, definitions: Node) -> None:
        self._definitions = definitions

    def node(self, said: Node, owner: type | None = None) -> Node:
        """One node of the schema; ``owner`` is the class that it describes, None where it is no class of ours."""
        said, owner = self._resolved(said, owner)
        unknown = set(said) - _UNDERSTOOD
        if unknown:
            raise NotImplementedError(f"schema of {owner}: cannot translate {sorted(unknown)}: {said}")
        out: Node = {"type": said["type"], "description": _described(said, owner)}
        if "const" in said:
            out["enum"] = [said["const"]]
        out |= {key: said[key] for key in _COPIED if key in said}
        if out.get("default") in (None, "", [], ()):
            out.pop("default", None)  # says nothing that leaving out does not say
        if said["type"] == "integer":
            out["format"] = "int64"
        if said["type"] == "array":
            out["items"] = self.node(said["items"])
        if said["type"] == "object":
            out |= self._object(said, owner)
        return {key: value for key, value in _bounded(out).items() if value != ""}

    def _resolved(self, said: Node, owner: type | None) -> tuple[Node, type | None]:
        """Without reference and without null: an optional field is one that may be left out."""
        if "anyOf" in said:
            (only,) = (choice for choice in said["anyOf"] if choice != {"type": "null"})
            outer = {key: value for key, value in said.items() if key != "anyOf"}
            return self._resolved({**only, **outer}, owner)
        if "$ref" in said:
            name = said["$ref"].rpartition("/")[2]
            outer = {key: value for key, value in said.items() if key != "$ref"}
            return {**self._definitions[name], "description": class_doc(_classes()[name]), **outer}, _classes()[name]
        return said, owner

    def _object(self, said: Node, owner: type | None) -> Node:
        out: Node = {}
        if "properties" in said:
            out["properties"] = {name: self.node(value) for name, value in _documented(said, owner).items()}
            if said.get("required"):
                out["required"] = sorted(said["required"])
            if owner is not None:
                out |= _immutability(owner, said)
        elif isinstance(said.get("additionalProperties"), dict):
            out["additionalProperties"] = self.node(said["additionalProperties"])
        elif PRESERVE not in said:
            raise NotImplementedError(f"an object of anything: annotate it as JsonObject: {said}")
        return out


LONGEST_TEXT = 32_768
MOST_ENTRIES = 32_768
LARGEST_NUMBER = 2**31 - 1


def _bounded(node: Node) -> Node:
    """``node`` with bounds, where its field states none: nothing that a server accepts is too much for a reader.

    Only the schema has these, not the types: what was stored before there was a bound can still be read.
    """
    if node.get("format") == "date-time":
        return {**node, "pattern": DATE_TIME, "maxLength": 64}
    match node["type"]:
        case "string" if "enum" not in node:
            return {**node, "maxLength": node.get("maxLength", LONGEST_TEXT)}
        case "integer" | "number":
            return {**node, "minimum": node.get("minimum", 0), "maximum": node.get("maximum", LARGEST_NUMBER)}
        case "array":
            return {**node, "maxItems": node.get("maxItems", MOST_ENTRIES)}
        case "object" if "additionalProperties" in node:
            return {**node, "maxProperties": node.get("maxProperties", MOST_ENTRIES)}
    return node


def _documented(said: Node, owner: type | None) -> dict[str, Node]:
    """The properties, each with the docstring that stands under its field."""
    if owner is None or not issubclass(owner, Schema):
        return dict(said["properties"])
    docs = field_docs(owner)
    names = {info.alias or field: field for field, info in owner.model_fields.items()}
    documented = {}
    for alias, value in said["properties"].items():
        doc = docs.get(names.get(alias, ""), "")
        documented[alias] = {**value, "description": doc} if doc else value
    return documented


def _described(said: Node, owner: type | None) -> str:
    """The description, with the values of an enum and what a pattern asks for."""
    parts = [said.get("description", "")]
    if "pattern" in said:
        parts.append(f"Must be {PATTERNS[said['pattern']]}.")
    if owner is not None and issubclass(owner, Enum):
        docs = field_docs(owner)
        parts += [f"{member.value}: {docs[name]}" for name, member in owner.__members__.items() if name in docs]
    return " ".join(part if part.endswith((".", "!", "?", "…")) else f"{part}." for part in parts if part)


def _immutability(owner: type, said: Node) -> Node:
    """Rules that hold every field at its first value, but for those in ``owner.MUTABLE``."""
    mutable = getattr(owner, "MUTABLE", None)
    if mutable is None:
        return {}
    rules = [
        {
            # `self.?field == oldSelf.?field` says the same, but is held to cost a hundred times the budget.
            "rule": f"has(self.{field}) == has(oldSelf.{field}) "
            f"&& (!has(self.{field}) || self.{field} == oldSelf.{field})",
            "message": f"{field} cannot be changed: submit a new run instead",
            "reason": "FieldValueForbidden",
            "fieldPath": f".{field}",
        }
        for field in said["properties"]
        if field not in mutable
    ]
    return {RULES: [*said.get(RULES, ()), *rules]}


@cache
def _classes() -> dict[str, type]:
    """Every class that a definition may name."""
    from cloaca.resources import ledger, meta, package, run, trigger

    modules = (meta, package, run, trigger, ledger)
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, (Schema, Enum))
    }
