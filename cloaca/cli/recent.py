"""The table of the latest runs, as part of what is told about a package or a trigger. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from cloaca.cli.follow import time_taken
from cloaca.cli.page import Page
from cloaca.cli.tables import age
from cloaca.resources import WorkflowRun

SHOWN = 10

_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


def newest_first(runs: Iterable[WorkflowRun]) -> list[WorkflowRun]:
    """By the time at which they were created."""
    return sorted(runs, key=lambda run: (run.metadata.creation_timestamp or _LONG_AGO, run.name), reverse=True)


def recent_runs(page: Page, runs: Iterable[WorkflowRun]) -> None:
    """Write the newest of them to ``page``, and how many more there are."""
    ordered = newest_first(runs)
    page.table(
        "Runs",
        ("Name", "Phase", "Age", "Took", "Key", "Message"),
        [
            (
                run.name,
                run.status.phase.value,
                age(run.metadata.creation_timestamp or page.now, page.now),
                time_taken(run),
                run.spec.key or "",
                run.status.message or "",
            )
            for run in ordered[:SHOWN]
        ],
        empty="none",
    )
    if len(ordered) > SHOWN:
        page.lines.append(f"  and {len(ordered) - SHOWN} older ones")
