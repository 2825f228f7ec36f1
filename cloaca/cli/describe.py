"""The command ``describe``: everything about objects, the answer to "why" first. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Any

import typer

from cloaca.cli.about_package import describe_package
from cloaca.cli.about_run import describe_run
from cloaca.cli.about_trigger import describe_trigger
from cloaca.cli.get import Query, find
from cloaca.cli.kinds import selector_of, targets_of
from cloaca.cli.page import Page
from cloaca.cli.place import Laptop, Place
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.terminal import print_answer, remark
from cloaca.resources import CloacinaPackage, Resource, Trigger, WorkflowRun
from cloaca.resources.names import PACKAGE_LABEL, TRIGGER_LABEL, label_value
from cloaca.store import Store

app = commands()


@command(app, "describe")
def describe(
    session: Session,
    what: Annotated[
        list[str], typer.Argument(metavar="WHAT", help="KIND, KIND NAME… or KIND/NAME…", show_default=False)
    ],
    selector: Annotated[str | None, typer.Option("--selector", "-l", help="Only with these labels: a=b,c=d.")] = None,
    namespace: NamespaceOption = "",
) -> None:
    """Tell everything about objects: above all why they did or did not run.

    \b
    Example:
      cloaca describe cpkg data-ingest
      cloaca describe ctrig data-ingest-inbox-watcher
      cloaca describe crun/data-ingest-inbox-watcher-42
    """
    kinds, objects = targets_of(what)
    query = Query(kinds=kinds, objects=objects, namespace=namespace, labels=selector_of(selector))

    async def work(store: Store) -> None:
        found = await find(store, query)
        if not found:
            remark(f"No resources found in {namespace} namespace.")
        for index, obj in enumerate(found):
            print_answer(
                *([""] if index else []), *await page_of(store, session.place, obj, datetime.now(timezone.utc))
            )

    session.with_store(work)


async def page_of(store: Store, place: Place, obj: Resource[Any, Any], now: datetime) -> Sequence[str]:
    """The lines about one object."""
    page = Page(now)
    namespace = obj.metadata.namespace
    waiting = await place.idle(store)
    if isinstance(obj, CloacinaPackage):
        labels = {PACKAGE_LABEL: label_value(obj.name)}
        triggers = [t for t in await store.list(Trigger, namespace) if t.spec.package_ref.name == obj.name]
        runs = await store.list(WorkflowRun, namespace, labels)
        describe_package(page, obj, triggers, runs, waiting)
    elif isinstance(obj, Trigger):
        runs = await store.list(WorkflowRun, namespace, {TRIGGER_LABEL: label_value(obj.name)})
        describe_trigger(page, obj, runs, waiting)
    elif isinstance(obj, WorkflowRun):
        log = place.home.run_log(obj.name, namespace) if isinstance(place, Laptop) else None
        describe_run(page, obj, log if log is not None and log.exists() else None, waiting)
    return page.lines
