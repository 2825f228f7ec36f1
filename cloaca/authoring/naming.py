"""What may be the name of a workflow, a task or a trigger. Pure."""

from __future__ import annotations

from cloaca.errors import DefinitionError

LONGEST_NAME = 253
SEPARATOR = "::"
"""Reserved: it stands between the parts of a TaskNamespace."""


def checked_name(value: object, what: str) -> str:
    """``value``, if it can be the name of ``what``; else raises DefinitionError (a ValueError).

    >>> checked_name("load", "a task's id")
    'load'
    """
    if not isinstance(value, str) or not value.strip():
        raise DefinitionError(f"{what} is a text that is not empty, not {value!r}")
    if len(value) > LONGEST_NAME or not value.isprintable():
        raise DefinitionError(f"{what} has at most {LONGEST_NAME} characters, all of them printable: {value[:300]!r}")
    if value != value.strip():
        raise DefinitionError(f"{what} neither begins nor ends with a space: write {value.strip()!r}, not {value!r}")
    if SEPARATOR in value:
        raise DefinitionError(
            f"{what} cannot contain {SEPARATOR!r}, which separates tenant, package, workflow and task: {value!r}"
        )
    return value
