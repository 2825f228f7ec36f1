"""Read the objects of a list one by one: those that cannot be read are noted and left out, and the others are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from cloaca.errors import Unreadable
from cloaca.resources.meta import Resource
from cloaca.resources.ref import DEFAULT_NAMESPACE, Ref
from cloaca.store.oddities import Oddities, Oddity, Stage
from cloaca.store.sql.rows import from_json

R = TypeVar("R", bound=Resource[Any, Any])


def readable(kind: type[R], texts: Iterable[str | bytes], oddities: Oddities) -> Iterator[R]:
    """The objects of ``texts``, without those that this version cannot read, which are added to ``oddities``."""
    for text in texts:
        try:
            obj = read(kind, text, oddities)
        except Unreadable:
            continue
        yield obj


def read(kind: type[R], text: str | bytes, oddities: Oddities) -> R:
    """The object that ``text`` is. Raises Unreadable, after adding it to ``oddities``."""
    try:
        obj = from_json(kind, text)
    except Unreadable as error:
        oddities.note(unreadable(kind, text, error))
        raise
    if oddities:
        oddities.well(obj.ref, Stage.READ)
    return obj


def unreadable(kind: type[Resource[Any, Any]], text: str | bytes, error: Unreadable) -> Oddity:
    """What is known of an object that cannot be read."""
    metadata = json.loads(text)["metadata"]
    ref = Ref(kind.KIND, metadata.get("namespace", DEFAULT_NAMESPACE), metadata["name"])
    return Oddity(ref=ref, uid=metadata.get("uid", ""), message=str(error))
