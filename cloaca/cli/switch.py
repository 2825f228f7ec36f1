"""The commands ``suspend``, ``resume`` and ``cancel``: one field of a spec, written whoever else writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from cloaca.cli.kinds import Kind, existing, full_name, kind_of, targets_of
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.terminal import say
from cloaca.errors import CloacaError, Conflict
from cloaca.resources import Resource, WorkflowRun
from cloaca.store import Store

app = commands()

ATTEMPTS = 20

WhatArgument = Annotated[list[str], typer.Argument(metavar="WHAT", help="KIND NAME… or KIND/NAME…", show_default=False)]


@command(app, "suspend")
def suspend(session: Session, what: WhatArgument, namespace: NamespaceOption = "") -> None:
    """Stop polling a trigger or a package; runs that exist finish.

    \b
    Example:
      cloaca suspend ctrig data-ingest-inbox-watcher
      cloaca suspend cpkg/data-ingest
    """
    _switch(session, what, namespace, suspend=True)


@command(app, "resume")
def resume(session: Session, what: WhatArgument, namespace: NamespaceOption = "") -> None:
    """Poll a trigger or a package again.

    \b
    Example:
      cloaca resume ctrig data-ingest-inbox-watcher
    """
    _switch(session, what, namespace, suspend=False)


def _switch(session: Session, what: list[str], namespace: str, *, suspend: bool) -> None:
    verb = "suspend" if suspend else "resume"
    kinds, objects = targets_of(what)
    if not objects:
        raise CloacaError(f"say which one to {verb}: KIND NAME, such as `cloaca {verb} trigger NAME`")
    if WorkflowRun in kinds:
        raise CloacaError(f"a run cannot be {verb}{'ed' if suspend else 'd'}: `cloaca cancel NAME` stops it for good")

    async def work(store: Store) -> None:
        for kind, name in objects:
            await existing(store, kind, name, namespace)  # all of them, before any is changed
        for kind, name in objects:
            changed, obj = await change(store, kind, name, namespace, lambda obj: obj.with_spec(suspend=suspend))
            outcome = (
                f"{verb}{'ed' if suspend else 'd'}"
                if changed
                else f"unchanged ({verb}{'ed' if suspend else 'd'} before)"
            )
            say(f"{full_name(obj.ref)} {outcome}")

    session.with_store(work)


@command(app, "cancel")
def cancel(
    session: Session,
    run: Annotated[list[str], typer.Argument(metavar="RUN", help="NAME… or run/NAME….", show_default=False)],
    namespace: NamespaceOption = "",
) -> None:
    """Cancel a run.

    Its tasks that are under way get to know, those that have not begun do not begin. It cannot be taken back.

    \b
    Example:
      cloaca cancel data-ingest-inbox-watcher-42
    """
    names = [_run_name(word) for word in (run[1:] if len(run) > 1 and _is_run(run[0]) else run)]

    async def work(store: Store) -> None:
        ended = []
        for name in names:
            seen = await existing(store, WorkflowRun, name, namespace)
            if seen.status.phase.finished and not seen.spec.cancel:
                ended.append(f"run {name!r} has ended already ({seen.status.phase.value}): there is nothing to cancel")
        if ended:
            raise CloacaError("\n".join(ended))
        for name in names:
            changed, obj = await change(store, WorkflowRun, name, namespace, lambda obj: obj.with_spec(cancel=True))
            say(f"{full_name(obj.ref)} {'cancelled' if changed else 'unchanged (cancelled before)'}")

    session.with_store(work)


def _is_run(word: str) -> bool:
    """Whether it is the kind, as in ``cancel run NAME``."""
    try:
        return kind_of(word) is WorkflowRun
    except CloacaError:
        return False


def _run_name(word: str) -> str:
    kind, slash, name = word.partition("/")
    if slash and kind_of(kind) is not WorkflowRun:
        raise CloacaError(f"{word!r} is no run: only runs can be cancelled; see `cloaca suspend` for triggers")
    return name if slash else word


async def change(
    store: Store,
    kind: Kind,
    name: str,
    namespace: str,
    edit: Callable[[Resource[Any, Any]], Resource[Any, Any]],
) -> tuple[bool, Resource[Any, Any]]:
    """(whether it had to be written, the object) once ``edit`` holds. Raises NotFound."""
    for _ in range(ATTEMPTS):
        seen = await existing(store, kind, name, namespace)
        wanted = edit(seen)
        if wanted == seen:
            return False, seen
        try:
            return True, await store.update(wanted)
        except Conflict:
            continue
    raise Conflict(f"{kind.KIND} {name!r} is written by others all the time, so it was not changed: try again")
