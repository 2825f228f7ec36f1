"""The command ``logs``: what user code printed, from the files of the home or from pods. Says why there is none."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from cloaca.cli.about_run import run_summary
from cloaca.cli.kinds import existing, kind_of
from cloaca.cli.place import Cluster
from cloaca.cli.running import absence_of_daemon, daemon_process
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.terminal import remark, writing
from cloaca.errors import CloacaError
from cloaca.home import Home
from cloaca.resources import CloacinaPackage, WorkflowRun
from cloaca.store import Store

app = commands()

PAUSE = 0.1  # seconds between two looks at a file that may grow
BLOCK = 64 * 1024


@command(app, "logs")
def logs(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="RUN|package/NAME", help="Whose output.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows, until the run ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only so many lines of the end.", show_default=False)] = None,
    namespace: NamespaceOption = "",
) -> None:
    """Show what a run or a package printed.

    A run's log holds what its tasks printed, over all its attempts; a package's what its import and its polls did. On
    a cluster it is that of their pods, for as long as those are there; --tail then is about the newest one.

    \b
    Example:
      cloaca logs data-ingest-inbox-watcher-42 -f
      cloaca logs package/data-ingest --tail 20
    """
    kind, slash, name = what.partition("/")
    chosen = kind_of(kind) if slash else WorkflowRun
    if chosen not in (CloacinaPackage, WorkflowRun):
        raise CloacaError(f"{what!r} has no log of its own: see `cloaca logs package/NAME` for what its polls printed")
    of_package = chosen is CloacinaPackage
    name = name if slash else what

    place = session.place
    if isinstance(place, Cluster):
        from cloaca.cli import pod_logs  # needs an HTTP client, which a laptop need not have

        whose = pod_logs.Whose(kind=chosen, name=name, namespace=namespace)
        show = pod_logs.follow if follow else pod_logs.show
        session.with_cluster(place, lambda store: show(store, whose, tail, _write))
        return
    home = place.home

    async def work(store: Store) -> None:
        if of_package:
            path = await _package_log(store, home, name, namespace)
            await _show(path, tail, _never if follow else None)
        else:
            await _run_log(store, home, name, namespace, tail, follow=follow)

    session.with_store(work)


async def _never() -> bool:
    return False


async def _package_log(store: Store, home: Home, name: str, namespace: str) -> Path:
    path = home.package_log(name, namespace)
    if not path.exists():
        await existing(store, CloacinaPackage, name, namespace)
        raise CloacaError(
            f"package {name!r} has no log: its code was not imported here yet ({path} is not there); "
            f"see `cloaca describe cpkg {name}`"
        )
    return path


async def _run_log(store: Store, home: Home, name: str, namespace: str, tail: int | None, *, follow: bool) -> None:
    path = home.run_log(name, namespace)

    async def ended() -> bool:
        run = await store.get(WorkflowRun, name, namespace)
        return run is None or run.status.phase.finished

    if follow and not path.exists():
        run = await existing(store, WorkflowRun, name, namespace)
        remark(f"waiting for run {name!r} to start: {run_summary(run)}")
        while not path.exists() and not await ended():
            await asyncio.sleep(PAUSE)
    if not path.exists():
        run = await existing(store, WorkflowRun, name, namespace)
        nobody = (
            f"; {absence_of_daemon(home)}" if daemon_process(home) is None and not run.status.phase.finished else ""
        )
        raise CloacaError(
            f"run {name!r} has no log: no process was started for it here ({path} is not there). "
            f"It is {run_summary(run)}{nobody}"
        )
    await _show(path, tail, ended if follow else None)
    if not path.stat().st_size:
        remark(f"run {name!r} printed nothing ({path} is empty)")


async def _show(path: Path, tail: int | None, ended: Callable[[], Awaitable[bool]] | None) -> None:
    """Print the file; with ``ended``, go on as it grows until that says so."""
    with path.open("rb") as file:
        if tail is not None:
            file.seek(_start_of_tail(file, tail))
        while True:
            over = ended is None or await ended()  # asked first: what was printed before the end is shown
            while data := file.read(BLOCK):
                _write(data)
            if over:
                return
            await asyncio.sleep(PAUSE)


def _write(data: bytes) -> None:
    with writing():
        sys.stdout.buffer.write(data)
        sys.stdout.flush()


def _start_of_tail(file: BinaryIO, lines: int) -> int:
    """Where the last ``lines`` lines begin."""
    position = file.seek(0, os.SEEK_END)
    if lines == 0:
        return position
    wanted, found = lines, 0
    first = True
    while position > 0:
        size = min(BLOCK, position)
        position -= size
        file.seek(position)
        data = file.read(size)
        if first and data.endswith(b"\n"):
            wanted += 1
        first = False
        breaks = [index for index, byte in enumerate(data) if byte == 0x0A]
        if found + len(breaks) >= wanted:
            return position + breaks[len(breaks) - (wanted - found)] + 1
        found += len(breaks)
    return 0
