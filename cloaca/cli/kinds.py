"""Read what a person writes for a kind or an object: ``cpkg,ctrig``, ``triggers``, ``crun/NAME``. Looks nothing up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloaca.errors import CloacaError, NotFound
from cloaca.packages.nearest import did_you_mean
from cloaca.resources import KINDS, CloacinaPackage, Ref, Resource, WorkflowRun
from cloaca.resources.ref import GROUP
from cloaca.store import Store

Kind = type[Resource[Any, Any]]

EVERYTHING = ("all", "cloacina")
"""What stands for every kind; the second is the category in the CRDs."""

ALIASES: dict[str, Kind] = {
    "package": CloacinaPackage,
    "packages": CloacinaPackage,
    "run": WorkflowRun,
    "runs": WorkflowRun,
}
"""What people say on a laptop, where no other kinds are about."""


def singular(kind: Kind) -> str:
    """``cloacinapackage``."""
    return kind.KIND.lower()


def full_name(ref: Ref) -> str:
    """``cloacinapackage.cloacina.io/data-ingest``, as kubectl names an object."""
    return f"{ref.kind.lower()}.{GROUP}/{ref.name}"


def kind_of(word: str) -> Kind:
    """The kind that ``word`` names: its plural, singular or short name, with the group or without."""
    wanted = word.lower().removesuffix(f".{GROUP}")
    known: dict[str, Kind] = {name: kind for kind in KINDS for name in (kind.PLURAL, singular(kind), *kind.SHORT_NAMES)}
    known |= ALIASES
    if wanted not in known:
        raise CloacaError(
            f"there is no kind {word!r}{did_you_mean(wanted, known)}; kinds are "
            + ", ".join(f"{kind.PLURAL} ({', '.join(kind.SHORT_NAMES)})" for kind in KINDS)
        )
    return known[wanted]


def kinds_of(words: str) -> tuple[Kind, ...]:
    """The kinds of a list such as ``cpkg,ctrig,crun``, each once."""
    found: dict[Kind, None] = {}
    for word in words.split(","):
        found.update(dict.fromkeys(KINDS if word.lower() in EVERYTHING else [kind_of(word)]))
    return tuple(found)


def targets_of(words: Sequence[str]) -> tuple[tuple[Kind, ...], tuple[tuple[Kind, str], ...]]:
    """(kinds, objects) of what kubectl takes: ``KINDS``, ``KINDS NAME…`` or ``KIND/NAME…``.

    No objects: every one of the kinds is meant.
    """
    if not words:
        raise CloacaError("say which objects, such as `triggers`, `triggers NAME` or `trigger/NAME`")
    if any("/" in word for word in words):
        objects = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not name:
                raise CloacaError(f"{word!r} stands beside names with a '/': write each as KIND/NAME, or none")
            objects.append((kind_of(kind), name))
        return tuple(dict.fromkeys(kind for kind, _ in objects)), tuple(objects)
    kinds = kinds_of(words[0])
    return kinds, tuple((kind, name) for kind in kinds for name in words[1:])


async def existing(store: Store, kind: type[Any], name: str, namespace: str) -> Any:
    """The object. Raises NotFound, which says what may have been meant."""
    found = await store.get(kind, name, namespace)
    if found is None:
        raise NotFound(await absence(store, kind, name, namespace))
    return found


async def absence(store: Store, kind: Kind, name: str, namespace: str) -> str:
    """The sentence for an object that is not there."""
    everywhere = await store.list(kind)
    elsewhere = [other.metadata.namespace for other in everywhere if other.name == name]
    hint = did_you_mean(name, [other.name for other in everywhere if other.metadata.namespace == namespace])
    if elsewhere:
        hint = f"; there is one in {elsewhere[0]!r}: add `-n {elsewhere[0]}`"
    hint = hint or f": see `cloaca get {kind.SHORT_NAMES[0]}`"
    return f"there is no {kind.KIND} {name!r} in namespace {namespace!r}{hint}"


def selector_of(text: str | None) -> dict[str, str]:
    """The labels that ``-l a=b,c=d`` asks for."""
    wanted: dict[str, str] = {}
    for part in (text or "").split(",") if text else ():
        key, equals, value = part.replace("==", "=").partition("=")
        if not equals or not key.strip() or key.endswith("!"):
            raise CloacaError(f"the selector {part!r} cannot be read: write KEY=VALUE, several with commas between")
        wanted[key.strip()] = value.strip()
    return wanted
