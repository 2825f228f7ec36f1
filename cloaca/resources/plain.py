"""Read YAML (or JSON) text into plain JSON values, and write it: no tags, no dates, no surprises, and bounded.

It reads as kubectl does (``yes`` is true, a date is a string), but refuses what kubectl would silently turn into
something else: keys given twice or that are no strings, tags, numbers that JSON has not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_NODES = 200_000  # after aliases are expanded: a page of "laughs" stands for billions
MAX_DEPTH = 100

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_NUMBERS_AND_DATES = {_TAG + "int", _TAG + "float", _TAG + "timestamp"}
_INT = re.compile(r"^[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+|0o[0-7]+)$")
_FLOAT = re.compile(
    r"^[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$"
)
_ODD_BOOL = re.compile(r"^[yYnN]$")  # true and false to other readers of YAML, so we quote them


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong, and where."""

    line: int
    path: Path = ()
    message: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document: its value, and the line on which each part of it stands."""

    value: Any
    line: int
    lines: dict[Path, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def line_of(self, path: Path) -> int:
        """The line of ``path``, or of the nearest thing around it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.line)


def written(path: Path) -> str:
    """``('spec', 'tasks', 0, 'id')`` as a person writes it: ``spec.tasks[0].id``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def read(text: str) -> Iterator[Document]:
    """Every document of ``text``. One that breaks the syntax ends it, as a document with nothing but that fault."""
    if len(text) > MAX_CHARACTERS:
        size = f"{len(text)} characters, more than {MAX_CHARACTERS}: split it into several files"
        yield Document(value=None, line=1, faults=(Fault(line=1, message=size),))
        return
    try:
        line = _too_deep(text)
        if line is not None:
            message = f"nested more than {MAX_DEPTH} levels deep"
            yield Document(value=None, line=line, faults=(Fault(line=line, message=message),))
            return
        loader = _Loader(text)
        while loader.check_node():
            yield _Reading().document(loader.get_node())
    except yaml.YAMLError as error:
        yield _broken(error)
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        yield Document(value=None, line=line, faults=(Fault(line=line, message="not UTF-8: half a character"),))


def write(value: Any, *, ascii_only: bool = False) -> str:
    """``value`` as one YAML document that we and kubectl read back the same; long strings stand as blocks.

    ``ascii_only`` writes escapes for all other characters.
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=not ascii_only, width=110)


_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(_BaseLoader):  # type: ignore[misc]  # which of the two it is shows when it runs
    """Only parses and resolves; values are made by ``_Reading``."""


class _Dumper(_BaseDumper):  # type: ignore[misc]  # which of the two it is shows when it runs
    """Quotes whatever any reader might take for something other than text."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _represented(dumper: Any, text: str) -> Any:
    block = "\n" in text and not re.search(r"[ \t]\n|\n[ \t]*$(?<!\n)", text)
    return dumper.represent_scalar(_TAG + "str", text, style="|" if block else None)


_Dumper.add_representer(str, _represented)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS_AND_DATES]
    for first, resolvers in _BaseLoader.yaml_implicit_resolvers.items()
}
for _either in (_Loader, _Dumper):
    _either.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
    _either.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver(_TAG + "bool", _ODD_BOOL, list("yYnN"))


class _Reading:
    """One document on its way from nodes to values."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.faults: list[Fault] = []
        self.nodes = 0

    def document(self, root: Any) -> Document:
        line = _line(root)
        try:
            value = self.value(root, ())
        except _TooMuch as error:
            return Document(value=None, line=line, faults=(Fault(line=line, message=str(error)),))
        return Document(value=value, line=line, lines=self.lines, faults=tuple(self.faults))

    def value(self, node: Any, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _TooMuch(f"more than {MAX_NODES} values once its aliases are expanded: split it up")
        if len(path) > MAX_DEPTH:
            raise _TooMuch(f"nested more than {MAX_DEPTH} levels deep")
        self.lines.setdefault(path, _line(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(entry, (*path, index)) for index, entry in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        return self.refuse(node, path, f"the tag {_short(node.tag)} is not allowed: only plain JSON values are")

    def mapping(self, node: Any, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, child in node.value:
            if key.tag == _TAG + "merge":
                for source in child.value if isinstance(child, yaml.SequenceNode) else (child,):
                    inherited = self.value(source, path)
                    merged = {**inherited, **merged} if isinstance(inherited, dict) else merged
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
                told = f"the key {key.value:.40}" if isinstance(key, yaml.ScalarNode) else "a key"
                self.refuse(key, path, f"{told} is no string: put it in quotes")
                continue
            inside = (*path, key.value)
            if key.value in first:
                self.refuse(key, inside, f"given twice, first on line {first[key.value]}: remove one of the two")
                continue
            first[key.value] = _line(key)
            self.lines[inside] = _line(key)
            own[key.value] = self.value(child, inside)
        return {**merged, **own}

    def scalar(self, node: Any, path: Path) -> Any:
        text = node.value
        match node.tag.removeprefix(_TAG):
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int" if _INT.match(text):
                return int(text, 0)
            case "float" if _FLOAT.match(text) and math.isfinite(
                float(text.replace(".inf", "inf").replace(".nan", "nan"))
            ):
                return float(text)
            case "int" | "float":
                return self.refuse(node, path, f"{text:.40} is no number that JSON has")
            case tag:
                return self.refuse(node, path, f"the tag {_short(tag)} is not allowed: only plain JSON values are")

    def refuse(self, node: Any, path: Path, message: str) -> None:
        self.faults.append(Fault(line=_line(node), path=path, message=message))


class _TooMuch(Exception):
    """The document is over a limit; nothing of it is used."""


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _short(tag: str) -> str:
    return "!" + tag.removeprefix(_TAG).lstrip("!")


def _too_deep(text: str) -> int | None:
    """The line on which nesting passes the limit; None: nowhere before the text ends or breaks.

    libyaml parses in a loop, but composes by recursion, in C: a page of brackets would take the process down.
    """
    depth = 0
    loader = _Loader(text)
    try:
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                return _line(event)
    except yaml.YAMLError:
        return None  # reading it for real tells, after the documents before it
    return None


def _broken(error: yaml.YAMLError) -> Document:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else 1
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    message = f"not YAML: {problem}{f' ({context})' if context else ''}"
    return Document(value=None, line=line, faults=(Fault(line=line, message=message),))
