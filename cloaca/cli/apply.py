"""The command ``apply``: what files declare becomes so. Writes nothing until every file is in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloaca.cli.files import FilesOption, read_files
from cloaca.cli.kinds import full_name
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.terminal import remark, say
from cloaca.errors import AlreadyExists, CloacaError, Conflict, Invalid, NotFound
from cloaca.resources import KINDS, Resource, WorkflowRun, immutable_faults
from cloaca.resources.documents import missing_references
from cloaca.store import Store

app = commands()

ATTEMPTS = 20  # others write the same object meanwhile


@command(app, "apply")
def apply(session: Session, filename: FilesOption = None, namespace: NamespaceOption = "") -> None:
    """Create or update objects from files.

    The spec becomes what the file says, labels and annotations are added to those that are there, status is left
    alone. When anything is wrong in any file, nothing is written.

    \b
    Example:
      cloaca apply -f package.yaml -f triggers/
      cloaca get ctrig -o yaml | sed s/5s/1s/ | cloaca apply -f -
    """
    if not filename:
        raise CloacaError("say what to apply: -f FILE, several times if there are several, or -f - for standard input")
    resources, faults = read_files(filename, namespace)

    async def work(store: Store) -> None:
        await apply_all(store, resources, faults)
        if idle := await session.place.idle(store):
            remark(f"note: {idle}")

    session.with_store(work, make=True)


async def apply_all(store: Store, resources: Sequence[Resource[Any, Any]], faults: Sequence[str] = ()) -> None:
    """Write ``resources`` and say of each what became of it. Raises Invalid, having written nothing, for any fault."""
    found = [*faults, *await _conflicts_with(store, resources)]
    if found:
        count = "one fault" if len(found) == 1 else f"{len(found)} faults"
        raise Invalid("\n".join((f"nothing was applied, because of {count}:", *(f"  {fault}" for fault in found))))
    order = {kind.KIND: place for place, kind in enumerate(KINDS)}  # what is referred to comes first
    for resource in sorted(resources, key=lambda resource: order[resource.KIND]):
        say(f"{full_name(resource.ref)} {await apply_one(store, resource)}")


async def _conflicts_with(store: Store, resources: Sequence[Resource[Any, Any]]) -> list[str]:
    """What is wrong with ``resources`` beside what is in the store."""
    namespaces = {resource.metadata.namespace for resource in resources}
    there = {obj.ref: obj for kind in KINDS for space in namespaces for obj in await store.list(kind, space)}
    faults = missing_references(resources, there.__contains__)
    for resource in resources:
        current = there.get(resource.ref)
        if isinstance(current, WorkflowRun) and isinstance(resource, WorkflowRun):
            faults += immutable_faults(current, current.model_copy(update={"spec": resource.spec}))
    return faults


async def apply_one(store: Store, wanted: Resource[Any, Any]) -> str:
    """Make it so, whoever else writes; returns ``created``, ``configured`` or ``unchanged``."""
    kind, metadata = type(wanted), wanted.metadata
    for _ in range(ATTEMPTS):
        current = await store.get(kind, metadata.name, metadata.namespace)
        try:
            if current is None:
                await store.create(_as_new(wanted))
                return "created"
            merged = _merged(current, wanted)
            if merged == current:
                return "unchanged"
            await store.update(merged)
        except (AlreadyExists, Conflict, NotFound):
            continue
        return "configured"
    raise Conflict(f"{wanted.ref} is written by others all the time, so it was not applied: try again")


def _as_new(wanted: Resource[Any, Any]) -> Resource[Any, Any]:
    """Without what stores and operators keep about an object: a file may come from another store."""
    metadata = wanted.metadata
    fresh = type(metadata)(
        name=metadata.name, namespace=metadata.namespace, labels=metadata.labels, annotations=metadata.annotations
    )
    return wanted.model_copy(update={"metadata": fresh})


def _merged(current: Resource[Any, Any], wanted: Resource[Any, Any]) -> Resource[Any, Any]:
    changed: Resource[Any, Any] = current.with_metadata(
        labels={**current.metadata.labels, **wanted.metadata.labels},
        annotations={**current.metadata.annotations, **wanted.metadata.annotations},
    )
    return changed.model_copy(update={"spec": wanted.spec})
