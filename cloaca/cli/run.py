"""The command ``run``: a workflow of a path, here and now; or a WorkflowRun of a deployed package."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cloaca.cli.child_process import Child, child
from cloaca.cli.follow import follow_run, succeeded, verdict
from cloaca.cli.kinds import existing
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.source import Unpacked, is_path, relative, unpacked
from cloaca.cli.submit import chosen_workflow, report, submit
from cloaca.cli.terminal import json_text, remark, say
from cloaca.cli.values import run_context, text_argument
from cloaca.errors import CloacaError
from cloaca.packages.process import EXIT_GRACE
from cloaca.resources import CloacinaPackage, ObjectMeta, RunSpec, WorkflowRun
from cloaca.resources.names import manual_run_name, object_name
from cloaca.resources.trigger import PackageReference
from cloaca.store import Store, open_store

app = commands()

GRACE = 1.0  # seconds in which what a process said last is heard


@command(app, "run")
def run(
    session: Session,
    what: Annotated[
        str, typer.Argument(metavar="PATH|PACKAGE", help="An archive, a folder, or a package.", show_default=False)
    ],
    workflow: Annotated[
        str | None, typer.Argument(help="May be left out where there is one.", show_default=False)
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="JSON", help="What its root tasks get: JSON, or @FILE.", show_default=False)
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Of a package: follow the run; exit code 1 if it fails.")
    ] = False,
    namespace: NamespaceOption = "",
) -> None:
    """Run a workflow: of a path here and now, or of a deployed package.

    Whatever exists as a file or folder is a path: its workflow is executed in a process of its own on a throw-away
    store, without a daemon. Anything else is the name of a deployed package (package/NAME always is): a WorkflowRun is
    submitted, pinned to the package's active archive, and the daemon executes it.

    \b
    Example:
      cloaca run . --context '{"filename": "a.parquet"}'
      cloaca run data-ingest-1.0.0.cloacina data_ingest --context @context.json
      cloaca run package/data-ingest data_ingest --wait
    """
    given = run_context(context)
    workflow = None if workflow is None else text_argument(workflow)
    prefix, slash, name = what.partition("/")
    deployed = bool(slash) and prefix in ("package", "cpkg", "cloacinapackage", "cloacinapackage.cloacina.io")
    if not deployed and is_path(what):
        with unpacked(Path(what)) as package:
            ended = asyncio.run(run_here(package, workflow, given))
        say(verdict(ended))
        if ended.status.traceback:
            remark(relative(ended.status.traceback.rstrip(), package))
        if not succeeded(ended):
            raise typer.Exit(1)
        say(json_text(ended.status.context or {}))
        return

    async def work(store: Store) -> None:
        package = await existing(store, CloacinaPackage, name if deployed else what, namespace)
        await report(store, session.place, await submit(store, package, workflow, given), wait=wait)

    session.with_store(work)


async def run_here(package: Unpacked, workflow: str | None, context: Mapping[str, Any]) -> WorkflowRun:
    """Execute it on a throw-away store and say how it goes; returns the run as it ended."""
    manifest, url = package.manifest, str(package.scratch / "run.db")
    store = await open_store(url)
    try:
        async with child(root=package.root, entry_module=manifest.entry_module) as process:
            known = [entry.name for entry in process.inventory.workflows]
            name = chosen_workflow(known, workflow, f"package {manifest.name!r}")
            wanted = WorkflowRun(
                metadata=ObjectMeta(name=manual_run_name(manifest.name, "here")),
                spec=RunSpec(
                    workflow=name, package_ref=PackageReference(name=object_name(manifest.name)), context=dict(context)
                ),
            )
            created = await store.create(wanted)
            say(f"{name} of {manifest.name} {manifest.version}")
            process.do({"op": "run", "store": url, "name": created.name})
            return await _followed(store, created, process)
    finally:
        await store.close()


async def _followed(store: Store, run: WorkflowRun, process: Child) -> WorkflowRun:
    """The run, once it and its process have ended. Raises CloacaError where the process dies before the run ends."""
    following = asyncio.ensure_future(follow_run(store, run.ref, say))
    dying = asyncio.ensure_future(process.ended())
    try:
        await asyncio.wait({following, dying}, return_when=asyncio.FIRST_COMPLETED)
        done, _ = await asyncio.wait({following}, timeout=GRACE)  # its last words may be on the way
        if not done:
            raise CloacaError(f"the process of the run ended ({await dying}) before the run did")
        await asyncio.wait({dying}, timeout=EXIT_GRACE + GRACE)  # its exit handlers too
        return following.result()
    finally:
        for task in (following, dying):
            task.cancel()
        await asyncio.wait({following, dying})
