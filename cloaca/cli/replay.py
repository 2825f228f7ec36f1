"""The command ``replay``: a new run with the context and the archive of an old one."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from cloaca.cli.kinds import existing
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.submit import Submitted, report
from cloaca.errors import CloacaError
from cloaca.resources import ObjectMeta, WorkflowRun
from cloaca.resources.names import manual_run_name
from cloaca.store import Store

app = commands()


@command(app, "replay")
def replay(
    session: Session,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run to repeat.", show_default=False)],
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit code 1 if it fails.")] = False,
    namespace: NamespaceOption = "",
) -> None:
    """Run once more what a run was given.

    It gets the same context and the same archive, and names the old run in spec.replayOf. It has no key, so it is never
    taken for a repetition, and it is a run of the same trigger: under Forbid it waits for its turn.

    \b
    Example:
      cloaca replay data-ingest-inbox-watcher-42 --wait
    """
    name = run.rpartition("/")[2]

    async def work(store: Store) -> None:
        seen = await existing(store, WorkflowRun, name, namespace)
        if seen.spec.package_ref is None:
            raise CloacaError(f"run {name!r} is of a program in library mode: only that program can repeat it")
        created = await store.create(repetition(seen, secrets.token_hex(8)))
        await report(store, session.place, Submitted(run=created, created=True), wait=wait)

    session.with_store(work)


def repetition(run: WorkflowRun, unique: str) -> WorkflowRun:
    """The run that repeats ``run``; ``unique`` tells it from other repetitions."""
    base = run.spec.trigger_ref.name if run.spec.trigger_ref is not None else run.spec.workflow
    fire_id = None if run.spec.trigger_ref is None else f"{unique}-replay"
    changes = {"replay_of": run.name, "key": None, "fire_id": fire_id, "cancel": False}
    return WorkflowRun(
        metadata=ObjectMeta(
            name=manual_run_name(base, f"replay-{unique[:8]}"),
            namespace=run.metadata.namespace,
            labels=run.metadata.labels,
            owner_references=run.metadata.owner_references,
        ),
        spec=run.spec.model_copy(update=changes),
    )
