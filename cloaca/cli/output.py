"""Show objects in the formats of ``-o``. Each kind supplies its columns (``COLUMNS``), nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import typer

from cloaca.cli.kinds import Kind, full_name
from cloaca.cli.tables import columns_of, headers_of, line, rows_of, table, widths_of
from cloaca.cli.terminal import can_be_written, json_text
from cloaca.resources import Resource
from cloaca.resources.ref import GROUP


class Format(str, Enum):
    """How objects are shown."""

    TABLE = "table"
    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"
    NAME = "name"


FormatOption = Annotated[
    Format, typer.Option("--output", "-o", help="How to show them; wide is a table of more columns.")
]


def documents(objects: Sequence[Resource[Any, Any]], form: Format, *, single: bool) -> str:
    """``objects`` as YAML or JSON, as a List unless one was asked for by name."""
    shown = [_document(obj) for obj in objects]
    value = shown[0] if single else {"apiVersion": "v1", "kind": "List", "items": shown}
    if form is Format.JSON:
        return json_text(value)
    from cloaca.resources.plain import write  # a table need not wait for YAML

    text = write(value)
    return (text if can_be_written(text) else write(value, ascii_only=True)).rstrip()


def names(objects: Sequence[Resource[Any, Any]]) -> list[str]:
    """``kind.group/name`` of each, which every command understands."""
    return [full_name(obj.ref) for obj in objects]


def tables(
    kinds: Sequence[Kind], objects: Sequence[Resource[Any, Any]], now: datetime, *, wide: bool, spaces: bool
) -> list[str]:
    """The lines of a table for each kind that has objects; several of them name the kind, as kubectl does."""
    lines: list[str] = []
    for kind in kinds:
        ours = [obj for obj in objects if isinstance(obj, kind)]
        if not ours:
            continue
        prefix = f"{kind.KIND.lower()}.{GROUP}/" if len(kinds) > 1 else ""
        columns = columns_of(kind, wide=wide)
        rows = rows_of(columns, ours, now, prefix=prefix, spaces=spaces)
        lines += [*([""] if lines else []), *table(headers_of(columns, spaces=spaces), rows)]
    return lines


class GrowingTable:
    """A table that gets a row whenever something changes; it keeps the widths that it began with."""

    def __init__(self, kind: Kind, *, wide: bool, spaces: bool) -> None:
        self._columns = columns_of(kind, wide=wide)
        self._spaces = spaces
        self._widths: list[int] = []

    def rows(self, objects: Sequence[Resource[Any, Any]], now: datetime) -> list[str]:
        """The lines for ``objects``; the first ones come with the header."""
        rows = rows_of(self._columns, objects, now, spaces=self._spaces)
        if self._widths or not rows:
            return [line(row, self._widths) for row in rows]
        rows.insert(0, headers_of(self._columns, spaces=self._spaces))
        self._widths = widths_of(rows)
        return [line(row, self._widths) for row in rows]


def _document(obj: Resource[Any, Any]) -> dict[str, Any]:
    document = obj.to_json_dict()
    metadata = {key: value for key, value in document["metadata"].items() if value not in ({}, [])}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], **document, "metadata": metadata}
