"""The command ``delete``: objects go, and everything that they own goes with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import typer

from cloaca.cli.files import FilesOption, read_files
from cloaca.cli.kinds import Kind, absence, selector_of, targets_of
from cloaca.cli.place import Laptop, Place
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.terminal import remark, say
from cloaca.errors import CloacaError, Invalid
from cloaca.resources import CloacinaPackage, Ref
from cloaca.resources.ref import GROUP
from cloaca.store import Store

app = commands()


@command(app, "delete")
def delete(
    session: Session,
    what: Annotated[
        list[str] | None, typer.Argument(metavar="WHAT", help="KIND NAME… or KIND/NAME…", show_default=False)
    ] = None,
    filename: FilesOption = None,
    selector: Annotated[str | None, typer.Option("--selector", "-l", help="All with these labels: a=b,c=d.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All objects of the kinds.")] = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is gone already is no error.")
    ] = False,
    namespace: NamespaceOption = "",
) -> None:
    """Delete objects, and everything that they own.

    A package takes its triggers with it, and a trigger its runs. Runs that are under way are stopped.

    \b
    Example:
      cloaca delete cpkg data-ingest
      cloaca delete crun -l cloacina.io/package=data-ingest
      cloaca delete -f package.yaml
    """
    kinds, objects = targets_of(what) if what else ((), ())
    if bool(kinds) == bool(filename):
        raise CloacaError("say what to delete: KIND NAME…, KIND/NAME…, or -f FILE, and not both")
    if kinds and sum((bool(objects), everything, selector is not None)) != 1:
        raise CloacaError("say which ones to delete: by name, by label with -l, or all of them with --all")
    refs: list[Ref] = []
    if filename:
        resources, faults = read_files(filename, namespace)
        if faults:
            raise Invalid("\n".join(("nothing was deleted: the files have faults:", *(f"  {f}" for f in faults))))
        refs = [resource.ref for resource in resources]

    async def work(store: Store) -> None:
        chosen = [*refs, *(Ref(kind.KIND, namespace, name) for kind, name in objects)]
        if kinds and not objects:
            labels = selector_of(selector)
            chosen = [obj.ref for kind in kinds for obj in await store.list(kind, namespace, labels)]
            if not chosen:
                remark("No resources found.")
        await _delete(store, session.place, chosen, {kind.KIND: kind for kind in kinds}, missing_ok=ignore_not_found)

    session.with_store(work)


async def _delete(store: Store, place: Place, refs: Sequence[Ref], kinds: dict[str, Kind], *, missing_ok: bool) -> None:
    missing = []
    for ref in refs:
        source = await _source_of(store, ref)
        if await store.delete(ref):
            say(f'{ref.kind.lower()}.{GROUP} "{ref.name}" deleted')
            if source is not None and _is_deployed_from(source, place):
                remark(f"note: {source} is still there, so the daemon deploys it again: remove the file")
        elif ref.kind in kinds:
            missing.append(await absence(store, kinds[ref.kind], ref.name, ref.namespace))
        else:
            missing.append(f"there is no {ref.kind} {ref.name!r} in namespace {ref.namespace!r}")
    if missing and not missing_ok:
        raise CloacaError("\n".join(missing))


def _is_deployed_from(source: Path, place: Place) -> bool:
    return isinstance(place, Laptop) and source.is_relative_to(place.home.packages) and source.exists()


async def _source_of(store: Store, ref: Ref) -> Path | None:
    """The file that a package comes from; None where it comes from elsewhere."""
    package: Any = await store.get(CloacinaPackage, ref.name, ref.namespace) if ref.kind == "CloacinaPackage" else None
    parts = urlsplit((package.spec.source.url if package else None) or "")
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None
