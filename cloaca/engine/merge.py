"""How contexts flow together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def merge(contexts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One context made of several, in the order given; nothing in it is shared with them.

    Objects merge recursively; lists unite: the first as it is, then what the later ones add, without repeats; of any
    other values the later wins.

    >>> merge([{"rows": 1, "files": ["a"]}, {"rows": 2, "files": ["a", "b"]}])
    {'rows': 2, 'files': ['a', 'b']}
    """
    merged: dict[str, Any] = {}
    for context in contexts:
        _merge_into(merged, context)
    return merged


def _merge_into(target: dict[str, Any], source: Mapping[str, Any]) -> None:
    for key, value in source.items():
        present = target.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge_into(present, value)
        elif isinstance(present, list) and isinstance(value, list):
            _unite(present, value)
        else:
            target[key] = copied(value)


def _unite(target: list[Any], source: list[Any]) -> None:
    seen = {_identity(item) for item in target}
    for item in source:
        identity = _identity(item)
        if identity not in seen:
            seen.add(identity)
            target.append(copied(item))


def _identity(item: Any) -> object:
    """Equal for items that are the same JSON value: 1 and 1.0 are, 1 and true are not; order of keys is nothing."""
    if isinstance(item, dict):
        return frozenset((key, _identity(value)) for key, value in item.items())
    if isinstance(item, list):
        return ("list", *map(_identity, item))
    return (isinstance(item, bool), item)


def copied(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    if type(value) is list:
        return [copied(item) for item in value]
    return value
