"""The command ``fire``: a run as the trigger itself would make it."""

from __future__ import annotations

from typing import Annotated

import typer

from cloaca.cli.kinds import existing
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.submit import fire as fire_trigger
from cloaca.cli.submit import report
from cloaca.cli.values import run_context, text_argument
from cloaca.errors import CloacaError
from cloaca.polling.answers import LONGEST_KEY
from cloaca.resources import Trigger
from cloaca.store import Store

app = commands()


@command(app, "fire")
def fire(
    session: Session,
    trigger: Annotated[str, typer.Argument(metavar="TRIGGER", help="Name of the Trigger.", show_default=False)],
    context: Annotated[
        str | None, typer.Option(metavar="JSON", help="What the run gets: JSON, or @FILE.", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Option(help="One run for this key, ever.", show_default=False)] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit code 1 if it fails.")] = False,
    namespace: NamespaceOption = "",
) -> None:
    """Fire a trigger by hand.

    The function is not called: the run is made as if it had fired. A key that has fired before makes no second run:
    its run is named, and where that was collected since, the exit code is 1.

    \b
    Example:
      cloaca fire data-ingest-inbox-watcher --context '{"filename": "a.parquet"}' --wait
      cloaca fire data-ingest-inbox-watcher --key a.parquet --context @context.json
    """
    given = run_context(context)
    key = None if key is None else text_argument(key)
    if key is not None and not 0 < len(key) <= LONGEST_KEY:
        raise CloacaError(f"--key: must have 1 to {LONGEST_KEY} characters, not {len(key)}: use a hash of it")
    name = trigger.rpartition("/")[2]

    async def work(store: Store) -> None:
        seen = await existing(store, Trigger, name, namespace)
        await report(store, session.place, await fire_trigger(store, seen, given, key), wait=wait)

    session.with_store(work)
