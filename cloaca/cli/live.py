"""A live view of packages, triggers and runs, and the command ``watch`` that shows it. Changes nothing.

At a terminal it is a picture that renews itself; elsewhere it says each thing once, in a line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Protocol

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cloaca.cli.follow import time_taken
from cloaca.cli.recent import newest_first
from cloaca.cli.session import ScopeOption, Session, command, commands
from cloaca.cli.tables import age, first_line
from cloaca.cli.terminal import writing
from cloaca.resources import CloacinaPackage, Condition, ConditionStatus, Trigger, WorkflowRun
from cloaca.resources.conditions import CONDITIONS
from cloaca.store import Store

app = commands()

REFRESH = 1.0  # seconds after which ages are renewed though nothing changed
TOGETHER = 0.03  # seconds in which changes are waited for, so that a burst is one picture
RUNS_SHOWN = 15
TICKS_SHOWN = 8

COLOURS = {
    "Completed": "green", "Failed": "red", "Cancelled": "red", "Running": "cyan", "Pending": "dim", "Skipped": "dim",
    "Fired": "green", "Deduplicated": "yellow", "Blocked": "yellow", "Error": "red",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything in the store at one moment; runs in the order in which they were created."""

    packages: tuple[CloacinaPackage, ...]
    triggers: tuple[Trigger, ...]
    runs: tuple[WorkflowRun, ...]
    now: datetime


class _Console(Console):
    """A console that leaves a closed pipe to ``writing``; its base class would end the process."""

    def on_broken_pipe(self) -> None:
        """Called while a BrokenPipeError is handled: raises it again."""
        raise  # noqa: PLE0704  # rich calls it while it handles the error


class View(Protocol):
    """Shows snapshots."""

    def show(self, seen: Snapshot) -> None:
        """Show it, or what is new in it."""
        ...


@command(app, "watch")
def watch(
    session: Session,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="End when every run has ended, instead of at Ctrl-C.")
    ] = False,
    namespace: ScopeOption = None,
) -> None:
    """Watch packages, triggers and runs as they change.

    \b
    Example:
      cloaca watch
      cloaca watch --until-done | tee events.log
    """

    def until(seen: Snapshot) -> bool:
        return until_done and all(run.status.phase.finished for run in seen.runs)

    scope = session.look_around(namespace)
    session.with_store(lambda store: live_view(store, _Console(highlight=False), until, scope), make=True)


async def live_view(
    store: Store, console: Console, until: Callable[[Snapshot], bool], namespace: str | None = None
) -> Snapshot:
    """Show the store on ``console`` until ``until`` is true of what is seen; returns that.

    ``namespace`` None: all of them.
    """
    if not console.is_terminal:
        return await _follow(store, Lines(console), until, namespace)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        return await _follow(store, _Picture(live), until, namespace)


async def _follow(store: Store, view: View, until: Callable[[Snapshot], bool], namespace: str | None) -> Snapshot:
    async with store.changes() as changes:
        waiting: asyncio.Task[None] | None = None
        try:
            while True:
                seen = await snapshot(store, namespace)
                with writing():
                    view.show(seen)
                if until(seen):
                    return seen
                waiting = waiting or asyncio.ensure_future(_next(changes))
                await asyncio.wait({waiting}, timeout=REFRESH)
                if waiting.done():
                    waiting.result()
                    waiting = None
                    await asyncio.sleep(TOGETHER)
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.wait({waiting})


async def _next(changes: AsyncIterator[object]) -> None:
    await changes.__anext__()


async def snapshot(store: Store, namespace: str | None = None) -> Snapshot:
    """What there is now."""
    return Snapshot(
        packages=await store.list(CloacinaPackage, namespace),
        triggers=await store.list(Trigger, namespace),
        runs=tuple(reversed(newest_first(await store.list(WorkflowRun, namespace)))),
        now=datetime.now(timezone.utc),
    )


class _Picture:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, seen: Snapshot) -> None:
        self._live.update(picture(seen), refresh=True)


def picture(seen: Snapshot) -> Group:
    """Everything at once, for a terminal: the newest runs last, as much as fits."""
    packages = _table("Packages", "NAME", "VERSION", "CONDITIONS")
    for package in seen.packages:
        active = package.status.active
        conditions = Text("  ").join(_condition(c) for c in package.status.conditions)
        packages.add_row(package.name, active.version if active else "", conditions)
    triggers = _table("Triggers", "NAME", "INTERVAL", "LAST FIRE", "POLLS, NEWEST FIRST")
    for trigger in seen.triggers:
        status = trigger.status
        polls = Text(" ").join(_word(tick.outcome.value) for tick in status.ticks[:TICKS_SHOWN])
        interval = "suspended" if trigger.spec.suspend else status.effective.poll_interval if status.effective else ""
        fired = f"{age(status.last_fire_time, seen.now)} ago" if status.last_fire_time else ""
        triggers.add_row(trigger.name, interval, fired, polls)
    runs = _table("Runs", "NAME", "PHASE", "TASKS", "AGE", "TOOK", "MESSAGE")
    for run in seen.runs[-RUNS_SHOWN:]:
        tasks = Text("  ").join(_worded(task.id, task.phase.value) for task in run.status.tasks)
        old = age(run.metadata.creation_timestamp or seen.now, seen.now)
        message = first_line(run.status.message or "")
        runs.add_row(run.name, _word(run.status.phase.value), tasks, old, time_taken(run), Text(message))
    more = len(seen.runs) - RUNS_SHOWN
    rest = Text(f"and {more} older runs", style="dim") if more > 0 else Text()
    return Group(packages, Text(), triggers, Text(), runs, rest)


def _table(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        made.add_column(column, header_style="dim", overflow="fold")
    return made


def _word(word: str) -> Text:
    return Text(word, style=COLOURS.get(word, ""))


def _condition(condition: Condition) -> Text:
    good = next((t.good for t in CONDITIONS["CloacinaPackage"] if t == condition.type), ConditionStatus.TRUE)
    style = "green" if condition.status is good else "yellow" if condition.status is ConditionStatus.UNKNOWN else "red"
    return Text(f"{condition.type} ").append(condition.status.value, style=style)


def _worded(name: str, word: str) -> Text:
    return Text(f"{name} ").append_text(_word(word))


class Lines:
    """Says each thing once, in a line, where nobody watches a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: set[str] = set()

    def show(self, seen: Snapshot) -> None:
        """Say what is new."""
        for package in seen.packages:
            for condition in package.status.conditions:
                message = first_line(condition.message)
                self._say(
                    f"package {package.name}: {condition.type}={condition.status.value} {condition.reason} {message}"
                )
        for trigger in seen.triggers:
            for tick in reversed(trigger.status.ticks):
                made = " ".join(tick.runs) or first_line(tick.reason)
                self._say(f"trigger {trigger.name}: {tick.time:%H:%M:%S.%f} {tick.outcome.value} {made}")
        for run in seen.runs:
            tasks = " ".join(f"{task.id}={task.phase.value}" for task in run.status.tasks)
            self._say(f"run {run.name}: {run.status.phase.value} {tasks} {first_line(run.status.message or '')}")

    def _say(self, line: str) -> None:
        line = " ".join(line.split())
        if line not in self._said:
            self._said.add(line)
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
