"""Lay out what ``describe`` tells: fields with a name, sections, tables, long texts. Pure, but for the colours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cloaca.cli.tables import age, first_line, line, widths_of
from cloaca.cli.terminal import block, styled
from cloaca.resources import Condition, Resource
from cloaca.resources.ref import rfc3339

WIDTH = 14  # of the names of fields


class Page:
    """Lines, as they come."""

    def __init__(self, now: datetime) -> None:
        self.lines: list[str] = []
        self.now = now

    def field(self, name: str, value: str | None) -> None:
        """``Name:  value``; nothing where there is no value. A value of several lines stands below."""
        if not value:
            return
        if "\n" in value:
            self.text(name, value)
        else:
            self.lines.append(f"{name + ':':<{WIDTH}} {value}")

    def pairs(self, name: str, values: Mapping[str, str]) -> None:
        """Labels and the like, one a line."""
        for index, (key, value) in enumerate(sorted(values.items())):
            self.lines.append(f"{name + ':' if index == 0 else '':<{WIDTH}} {key}={value}")

    def text(self, name: str, value: str | None) -> None:
        """A text of several lines under its name."""
        if value and value.strip():
            self.lines += [f"{name}:", *block(value.rstrip().splitlines())]

    def json(self, name: str, value: Mapping[str, Any] | None) -> None:
        """An object; nothing where it is empty."""
        if value:
            self.text(name, json.dumps(value, indent=2, ensure_ascii=False))

    def table(self, name: str, headers: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str = "") -> None:
        """A table under its name; ``empty`` instead where it has no rows, and nothing where that is empty too.

        Phases and the like get their colour.
        """
        plain = [[first_line(cell) for cell in row] for row in rows]
        if not plain:
            self.field(name, empty)
            return
        used = [i for i in range(len(headers)) if any(row[i] for row in plain)]
        chosen = [[row[i] for i in used] for row in ([header.upper() for header in headers], *plain)]
        widths = widths_of(chosen)
        self.lines.append(f"{name}:")
        self.lines.append(f"  {line(chosen[0], widths)}")
        for row in chosen[1:]:
            cells = [styled(cell.ljust(width)) for cell, width in zip(row, widths, strict=True)]
            self.lines.append(f"  {line(cells, [0] * len(cells))}")

    def moment(self, name: str, moment: datetime | None) -> None:
        """A time, and how long ago that is."""
        if moment is not None:
            self.field(name, f"{rfc3339(moment)} ({self.ago(moment)})")

    def ago(self, moment: datetime | None) -> str:
        """``5s ago``, ``in 5s``; empty for no moment."""
        if moment is None:
            return ""
        if moment > self.now:
            return f"in {age(self.now, moment)}"
        return f"{age(moment, self.now)} ago"

    def head(self, obj: Resource[Any, Any]) -> None:
        """Name, namespace, labels, annotations."""
        self.field("Name", obj.name)
        self.field("Namespace", obj.metadata.namespace)
        self.field("Kind", obj.KIND)
        self.pairs("Labels", obj.metadata.labels)
        self.pairs("Annotations", {key: first_line(text) for key, text in obj.metadata.annotations.items()})

    def conditions(self, conditions: Sequence[Condition], empty: str = "none yet: nobody has looked at it") -> None:
        """All of them in a table, and below it the messages that are longer than a line, each once."""
        self.table(
            "Conditions",
            ("Type", "Status", "Reason", "Since", "Message"),
            [(c.type, c.status.value, c.reason, age(c.last_transition_time, self.now), c.message) for c in conditions],
            empty=empty,
        )
        told: set[str] = set()
        for condition in conditions:
            if "\n" in condition.message.strip() and condition.message not in told:
                told.add(condition.message)
                self.text(f"{condition.type} is {condition.status.value}, {condition.reason}", condition.message)
