"""Say what a table shows of an object: one description for ``kubectl get`` (in the CRD) and ``cloaca get``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

ColumnType = Literal["string", "integer", "boolean", "date"]

_STEP = re.compile(r"""\.(?P<field>[A-Za-z]\w*) | \[\?\(@\.(?P<key>\w+)\s*==\s*"(?P<value>[^"]*)"\)\]""", re.VERBOSE)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. The path is a JSON path of fields and ``[?(@.field=="value")]``, all that we need of it."""

    header: str
    path: str
    description: str
    type: ColumnType = "string"
    priority: int = 0
    """0: always shown; 1: with ``-o wide`` only."""

    def value(self, document: Mapping[str, Any]) -> Any:
        """What ``document`` (the object as JSON) has there; None where it has nothing. Dates come as they are."""
        found: Any = document
        for step in self.steps():
            found = step(found)
            if found is None:
                return None
        return found

    def steps(self) -> Iterable[_Field | _First]:
        """The path, taken apart. Raises ValueError where it is none that we understand."""
        position = 0
        while position < len(self.path):
            match = _STEP.match(self.path, position)
            if match is None:
                raise ValueError(f"column {self.header}: cannot read {self.path!r} from {self.path[position:]!r} on")
            if match["field"]:
                yield _Field(match["field"])
            else:
                yield _First(match["key"], match["value"])
            position = match.end()


@dataclass(frozen=True)
class _Field:
    name: str

    def __call__(self, value: Any) -> Any:
        return value.get(self.name) if isinstance(value, Mapping) else None


@dataclass(frozen=True)
class _First:
    key: str
    wanted: str

    def __call__(self, value: Any) -> Any:
        entries = value if isinstance(value, (list, tuple)) else ()
        return next((e for e in entries if isinstance(e, Mapping) and e.get(self.key) == self.wanted), None)


def condition_column(
    header: str, condition: str, field: str = "status", *, description: str, priority: int = 0
) -> Column:
    """A column for one field of one condition."""
    path = f'.status.conditions[?(@.type=="{condition}")].{field}'
    return Column(header=header, path=path, description=description, priority=priority)


AGE = Column(header="Age", path=".metadata.creationTimestamp", type="date", description="Since it was created.")
