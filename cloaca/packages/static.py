"""Find the names of tasks, triggers and workflows by reading code, without running it. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cloaca.packages.inventory import Place

LARGEST_SOURCE = 1024 * 1024  # bytes; more is no code that a person wrote, and parsing it takes memory


@dataclass(frozen=True, kw_only=True)
class StaticName:
    """A name that a decorator states literally. ``certain``: it is registered whenever the package is imported."""

    place: Place
    certain: bool


@dataclass(kw_only=True)
class StaticNames:
    """What reading the code found."""

    triggers: dict[str, StaticName] = field(default_factory=dict)
    tasks: dict[str, StaticName] = field(default_factory=dict)
    dynamic: bool = False
    """There may be more: names that are computed, or code that was not read."""
    faults: list[str] = field(default_factory=list)
    """Files that cannot be read as Python, with the line."""


def static_names(sources: Mapping[str, bytes], entry_module: str, *, has_vendor: bool = False) -> StaticNames:
    """The names in ``sources`` (path → content). ``has_vendor``: there is other code, which was not read."""
    names = StaticNames(dynamic=has_vendor)
    stem = entry_module.replace(".", "/")
    for path, content in sources.items():
        tree = _parsed(path, content, names)
        if tree is not None:
            _Reader(path, names, entry=path in (f"{stem}.py", f"{stem}/__init__.py")).read(tree)
    return names


def _parsed(path: str, content: bytes, names: StaticNames) -> ast.Module | None:
    if len(content) > LARGEST_SOURCE:
        names.faults.append(f"{path}: is {len(content):,} bytes, over the limit of {LARGEST_SOURCE:,} for a module")
        return None
    try:
        return ast.parse(content, filename=path)
    except SyntaxError as error:
        names.faults.append(f"{path}:{error.lineno or 1}: {error.msg}")
    except (RecursionError, MemoryError, ValueError) as error:
        names.faults.append(f"{path}: cannot be read as Python: {str(error) or 'it is nested too deep, or too large'}")
    return None


class _Reader:
    """Reads one module."""

    def __init__(self, path: str, names: StaticNames, *, entry: bool) -> None:
        self._path = path
        self._names = names
        self._entry = entry
        self._modules: set[str] = set()  # names that mean the module cloaca
        self._decorators: dict[str, str] = {}  # name here -> "task" or "trigger"

    def read(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            self._note_import(node)
        for node, sure in _definitions(tree.body, sure=self._entry):
            for decorator in node.decorator_list:
                self._note_decorator(decorator, node, sure=sure)
        self._note_calls(tree)

    def _note_import(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "cloaca":
                    self._modules.add(alias.asname or "cloaca")
        elif isinstance(node, ast.ImportFrom) and node.module == "cloaca":
            for alias in node.names:
                if alias.name == "*":
                    self._decorators |= {"task": "task", "trigger": "trigger"}
                elif alias.name in ("task", "trigger"):
                    self._decorators[alias.asname or alias.name] = alias.name

    def _kind(self, function: ast.expr) -> str | None:
        """``task`` or ``trigger``, if that is what ``function`` names."""
        if isinstance(function, ast.Name):
            return self._decorators.get(function.id)
        if not isinstance(function, ast.Attribute) or function.attr not in ("task", "trigger"):
            return None
        of_ours = isinstance(function.value, ast.Name) and function.value.id in self._modules
        return function.attr if of_ours else None

    def _note_decorator(self, decorator: ast.expr, node: ast.FunctionDef | ast.AsyncFunctionDef, *, sure: bool) -> None:
        if not isinstance(decorator, ast.Call):
            return
        kind = self._kind(decorator.func)
        if kind is None:
            return
        stated = _argument(decorator, "id", 0) if kind == "task" else _argument(decorator, "name", 1)
        if stated is None:
            name: object = node.name
        else:
            name = stated.value if isinstance(stated, ast.Constant) else None
        if not isinstance(name, str) or any(keyword.arg is None for keyword in decorator.keywords):
            self._names.dynamic = True
            return
        found = self._names.tasks if kind == "task" else self._names.triggers
        place = Place(file=self._path, line=node.lineno)
        known = found.get(name)
        found[name] = StaticName(place=place, certain=sure or (known is not None and known.certain))

    def _note_calls(self, tree: ast.Module) -> None:
        """Decorators that are used otherwise than as such make names that reading cannot tell."""
        applied = {
            id(decorator.func)
            for node, _ in _definitions(tree.body, sure=True)
            for decorator in node.decorator_list
            if isinstance(decorator, ast.Call)
        }
        for node in ast.walk(tree):
            if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in applied and self._kind(node) is not None:
                self._names.dynamic = True


def _definitions(body: list[ast.stmt], *, sure: bool) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Every function below ``body``, and whether it is certainly defined when the module is imported."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node, sure
            yield from _definitions(node.body, sure=False)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            yield from _definitions(node.body, sure=sure)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    yield from _definitions([child], sure=False)
                elif isinstance(child, ast.ExceptHandler):
                    yield from _definitions(child.body, sure=False)


def _argument(call: ast.Call, keyword: str, position: int) -> ast.expr | None:
    for given in call.keywords:
        if given.arg == keyword:
            return given.value
    if len(call.args) > position:
        return call.args[position]
    return None
