"""The command ``get``: objects as kubectl shows them. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Annotated, Any

import typer

from cloaca.cli.kinds import Kind, absence, selector_of, targets_of
from cloaca.cli.output import Format, FormatOption, GrowingTable, documents, names, tables
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.terminal import print_answer, remark
from cloaca.errors import CloacaError
from cloaca.resources import Ref, Resource
from cloaca.resources.meta import matches
from cloaca.store import Store

app = commands()


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which objects are asked for."""

    kinds: tuple[Kind, ...]
    objects: tuple[tuple[Kind, str], ...] = ()  # empty: every one of the kinds
    namespace: str | None = "default"  # None: all of them
    labels: dict[str, str] = field(default_factory=dict)

    def wants(self, obj: Resource[Any, Any]) -> bool:
        """Whether ``obj`` is one of them."""
        return (
            isinstance(obj, self.kinds)
            and self.namespace in (None, obj.metadata.namespace)
            and matches(obj.metadata.labels, self.labels)
            and (not self.objects or (type(obj), obj.name) in self.objects)
        )


@command(app, "get")
def get(
    session: Session,
    what: Annotated[
        list[str],
        typer.Argument(metavar="WHAT", help="KIND, KIND NAME… or KIND/NAME…; kinds with commas.", show_default=False),
    ],
    output: FormatOption = Format.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, with a row for each change.")] = False,
    selector: Annotated[str | None, typer.Option("--selector", "-l", help="Only with these labels: a=b,c=d.")] = None,
    namespace: NamespaceOption = "",
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")] = False,
) -> None:
    """Show objects as a table, YAML or JSON.

    Kinds are cloacinapackages (cpkg), triggers (ctrig) and workflowruns (crun); all stands for the three.

    \b
    Example:
      cloaca get cpkg,ctrig,crun
      cloaca get ctrig data-ingest-inbox-watcher -o yaml
      cloaca get crun -w -l cloacina.io/package=data-ingest
    """
    kinds, objects = targets_of(what)
    if objects and all_namespaces:
        raise CloacaError("an object is in one namespace: leave out -A, or the names")
    query = Query(
        kinds=kinds,
        objects=objects,
        namespace=None if all_namespaces else namespace,
        labels=selector_of(selector),
    )
    if watch and len(kinds) > 1:
        raise CloacaError("-w follows one kind: ask for one, or use `cloaca watch` to see them all")
    if all_namespaces:
        session.namespace = None
    session.with_store(lambda store: follow(store, query, output) if watch else show(store, query, output))


async def show(store: Store, query: Query, form: Format) -> None:
    """Print what ``query`` finds."""
    found = await find(store, query)
    single = len(query.objects) == 1 and len(found) == 1
    if form in (Format.YAML, Format.JSON):
        print_answer(documents(found, form, single=single))
    elif form is Format.NAME:
        print_answer(*names(found))
    elif found:
        now = datetime.now(timezone.utc)
        print_answer(*tables(query.kinds, found, now, wide=form is Format.WIDE, spaces=query.namespace is None))
    else:
        where = "" if query.namespace is None else f" in {query.namespace} namespace"
        remark(f"No resources found{where}.")


async def find(store: Store, query: Query) -> list[Resource[Any, Any]]:
    """What ``query`` asks for, by kind and name. Raises CloacaError for a name that is not there."""
    if not query.objects:
        return [obj for kind in query.kinds for obj in await store.list(kind, query.namespace, query.labels)]
    found: list[Resource[Any, Any]] = []
    missing: list[str] = []
    for kind, name in query.objects:
        obj = await store.get(kind, name, query.namespace or "default")
        if obj is not None:
            found.append(obj)
        elif len(query.kinds) == 1 or not _one_of_several(query, name):
            missing.append(await absence(store, kind, name, query.namespace or "default"))
    if missing or not found:
        raise CloacaError("\n".join(missing) or "none of the kinds has an object of such a name")
    return found


def _one_of_several(query: Query, name: str) -> bool:
    """Whether the name was asked for of several kinds, as in ``cpkg,ctrig NAME``: one of them is enough."""
    return sum(other == name for _, other in query.objects) > 1


async def follow(store: Store, query: Query, form: Format) -> None:
    """Print what ``query`` finds, and again whatever of it changes, until interrupted."""
    async with store.changes() as changes:
        seen = {obj.ref: obj for obj in await find(store, query)}
        printer = _Printer(query, form)
        printer.show(list(seen.values()))
        async for change in changes:
            kind = query.kinds[0]
            if change.ref.kind != kind.KIND:
                continue
            obj = await store.get(kind, change.ref.name, change.ref.namespace)
            shown = _to_show(seen, change.ref, obj)
            if shown is not None and query.wants(shown):
                printer.show([shown])
            await asyncio.sleep(0)


def _to_show(
    seen: dict[Ref, Resource[Any, Any]], ref: Ref, obj: Resource[Any, Any] | None
) -> Resource[Any, Any] | None:
    """What a change is to print: the object, its last state where it is gone, or nothing where it is no news."""
    if obj is None:
        return seen.pop(ref, None)
    known = seen.get(ref)
    seen[ref] = obj
    return None if known is not None and known.metadata.resource_version == obj.metadata.resource_version else obj


class _Printer:
    def __init__(self, query: Query, form: Format) -> None:
        self._form = form
        self._table = GrowingTable(query.kinds[0], wide=form is Format.WIDE, spaces=query.namespace is None)
        self._first = True

    def show(self, objects: Sequence[Resource[Any, Any]]) -> None:
        if self._form is Format.NAME:
            print_answer(*names(objects))
        elif self._form in (Format.YAML, Format.JSON):
            for obj in objects:
                print_answer(*(["---"] if self._form is Format.YAML and not self._first else []))
                print_answer(documents([obj], self._form, single=True))
                self._first = False
        else:
            print_answer(*self._table.rows(objects, datetime.now(timezone.utc)))
