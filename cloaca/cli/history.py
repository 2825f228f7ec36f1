"""The command ``history``: what the last polls of a trigger did, and why."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer

from cloaca.cli.kinds import existing
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.tables import age, first_line, table, took
from cloaca.cli.terminal import print_answer
from cloaca.resources import Trigger
from cloaca.store import Store

app = commands()

HEADS = ("AGE", "OUTCOME", "TOOK", "RUNS", "REASON")


@command(app, "history")
def history(
    session: Session,
    trigger: Annotated[str, typer.Argument(metavar="TRIGGER", help="Name of the Trigger.", show_default=False)],
    namespace: NamespaceOption = "",
) -> None:
    """Show what the last polls of a trigger did, and why.

    Newest first; at most 20 are kept. Polls that found nothing to do are recorded once a minute.

    \b
    Example:
      cloaca history data-ingest-inbox-watcher
    """
    name = trigger.rpartition("/")[2]

    async def work(store: Store) -> None:
        seen = await existing(store, Trigger, name, namespace)
        rows = _rows(seen, datetime.now(timezone.utc))
        if not rows:
            print_answer(f"trigger {name!r} has no poll on record yet: see `cloaca describe trigger {name}`")
            return
        print_answer(*table(HEADS, rows))

    session.with_store(work)


def _rows(trigger: Trigger, now: datetime) -> list[tuple[str, ...]]:
    return [
        (
            age(tick.time, now),
            tick.outcome.value,
            took(tick.duration_ms / 1000),
            ", ".join(tick.runs) or "-",
            first_line(tick.reason),
        )
        for tick in trigger.status.ticks
    ]
