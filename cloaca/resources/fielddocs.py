"""Read the docstrings under fields and enum members from the source. For the generators only: it parses modules."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from enum import Enum
from functools import cache
from itertools import pairwise

from cloaca.resources.meta import Schema


def field_docs(owner: type[Schema | Enum]) -> dict[str, str]:
    """Attribute name → what stands under it, as one line; inherited attributes included."""
    docs: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        docs.update(_of_module(base.__module__).get(base.__qualname__, {}))
    return docs


def class_doc(owner: object) -> str:
    """What a class says of itself, its first paragraph as one line."""
    return one_line((inspect.getdoc(owner) or "").split("\n\n")[0])


def one_line(text: str) -> str:
    """Without line breaks, and with Markdown's single backticks."""
    return re.sub(r"\s+", " ", text.replace("``", "`")).strip()


@cache
def _of_module(name: str) -> dict[str, dict[str, str]]:
    if not name.startswith("cloaca."):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: _of_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for statement, after in pairwise(node.body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[name] = one_line(text)
    return docs
