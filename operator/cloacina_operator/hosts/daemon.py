"""The local daemon: a home, a SQL store, child processes. ``python -m cloacina_operator.hosts.daemon``."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloaca.errors import CloacaError
from cloaca.home import STORE_VARIABLE, Home, absolute, unmask_owner
from cloaca.store import ArchiveStore, open_archives
from cloaca.store.oddities import Oddities
from cloaca.store.of_home import store_url
from cloaca.store.sql.url import without_password
from cloaca.streams import open_standard_streams
from cloacina_operator.core.turns import RunLimits
from cloacina_operator.executors.children import Children
from cloacina_operator.hosts.counted import CountedFile, CountedRuns
from cloacina_operator.hosts.folder import Folders
from cloacina_operator.hosts.folder_permissions import refuse_writable_by_others
from cloacina_operator.hosts.guard import Guard, HomeLost
from cloacina_operator.hosts.lock import HomeLock, locked
from cloacina_operator.hosts.logs import set_up
from cloacina_operator.hosts.seat import Seat
from cloacina_operator.settings import DaemonSettings, read_settings
from cloacina_operator.shell.archives import Archives
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.queue import Queue
from cloacina_operator.shell.reconcile import Reconciler, utc_now

if TYPE_CHECKING:
    from cloaca.processes.scrapes import Scrapes
    from cloacina_operator.hosts.metrics import Meters

log = logging.getLogger("cloacina.daemon")

AT_START = (
    "store",
    "import_timeout",
    "worker_memory",
    "jitter",
    "metrics_port",
    "limits",
)  # as they were when it started
LOOPBACK = "127.0.0.1"
LEFT_AT_ONCE = 130  # exit code after a second SIGINT, as a shell has it


def _limits(settings: DaemonSettings) -> RunLimits:
    return RunLimits(total=settings.max_runs, per_package=settings.max_runs_per_package)


class Daemon:
    """Everything that the daemon consists of, wired. Belongs to one event loop."""

    def __init__(
        self,
        settings: DaemonSettings,
        store: ArchiveStore,
        store_url: str,
        seat: Seat | None,
        guard: Guard,
        overrides: dict[str, Any],
    ) -> None:
        """``seat`` None: the lock of the home is enough."""
        self._settings = settings
        self._overrides = overrides
        self._store = store
        self._seat = seat
        self._guard = guard
        self._queue = Queue()
        meters = None if settings.metrics_port is None else _meters()
        store_failed = _nobody_counts if meters is None else meters.operator_store_failed
        self._children = Children(
            store=store,
            store_url=store_url,
            home=settings.home,
            limits=settings.limits,
            import_timeout=settings.import_timeout,
            worker_memory=settings.worker_memory,
            jitter=settings.jitter,
            measures=None if meters is None else meters.polls(),
            changed=self._queue.add,
        )
        self._archives = Archives(
            store=store,
            executor=self._children,
            changed=self._queue.add,
            kept_in=store,
            store_failed=store_failed,
        )
        self._counted = CountedFile(settings.home.counted)
        index = Index(store, oddities=store.oddities)
        if meters is not None:
            before, keep = self._counted.read(), self._counted.write
            counted = CountedRuns(meters.run_ended, until=before, now=utc_now, keep=keep)
            index = Index(store, counted, oddities=store.oddities, counted_until=counted.until)
        self._scrapes = None if meters is None else _scrapes(meters, self._queue, index, store.oddities)
        self._folders = Folders(
            store=store, folders=_watched(settings), limits=settings.limits, changed=self._queue.add
        )
        self._reconciler = Reconciler(
            store=store,
            executor=self._children,
            archives=self._archives,
            index=index,
            queue=self._queue,
            now=utc_now,
            limits=_limits(settings),
            store_failed=store_failed,
            source_trouble=self._folders.trouble,
            oddities=store.oddities,
        )
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until a signal says to stop; then let what runs end, up to the limit."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        if self._scrapes is not None and self._settings.metrics_port is not None:
            await _listen(self._scrapes, self._settings.metrics_port)
        await self._children.start()
        reconciling = asyncio.ensure_future(self._reconciler.run())
        following = asyncio.ensure_future(self._folders.run())
        guarding = asyncio.ensure_future(self._guard.keep())
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self._stopping.wait())
        keeping = asyncio.ensure_future(loop.create_future() if self._seat is None else self._seat.keep())
        log.info("ready: copy .cloacina archives into %s", self._settings.home.packages)
        gc.collect()
        gc.freeze()  # what start-up made stays; the collector need not look at it again
        try:
            working = (reconciling, following, keeping, guarding)
            while not stopping.done():
                await asyncio.wait({*working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                for task in working:
                    if task.done() and not task.cancelled():
                        task.result()
            log.info(
                "stopping: waiting up to %g s for polls and runs; interrupt again to leave at once",
                self._settings.drain,
            )
            following.cancel()
            await self._children.drain(self._settings.drain)
        finally:
            for ending in (reconciling, following, keeping, guarding, stopping):
                ending.cancel()
            if self._scrapes is not None:
                await self._scrapes.close()
            await self._archives.close()
            await self._children.close()
            with suppress(asyncio.CancelledError):
                await reconciling
            self._counted.close()

    def _asked_to_stop(self, number: int) -> None:
        if self._stopping.is_set() and number == signal.SIGINT:
            os._exit(LEFT_AT_ONCE)  # the children notice and end; what they recorded stands
        self._stopping.set()

    def _reload(self) -> None:
        """SIGHUP: read the settings again and look at the folders; settings that need a new start say so."""
        try:
            settings = read_settings(self._settings.home, dict(self._overrides))
            refuse_writable_by_others(settings, by_option="allow_shared_folders" in self._overrides)
        except CloacaError as error:
            log.error("the settings are not reloaded: %s", error)  # noqa: TRY400  # a person's mistake, no traceback
            return
        set_up(settings.log_level, settings.log_format)
        self._folders.watch(_watched(settings))
        self._reconciler.turns.limits = _limits(settings)
        later = [name for name in AT_START if getattr(settings, name) != getattr(self._settings, name)]
        if later:
            log.warning("%s: takes effect when the daemon is started again", ", ".join(later))
        self._settings = settings
        log.info("settings reloaded")


def _watched(settings: DaemonSettings) -> tuple[Path, ...]:
    return (settings.home.packages, *settings.watch_dirs)


def _nobody_counts() -> None:
    """Of a daemon without metrics."""


def _meters() -> Meters:
    """Imported where it is asked for: the library that counts is an extra."""
    try:
        from cloacina_operator.hosts.metrics import Meters
    except ModuleNotFoundError as error:
        raise CloacaError(
            f"metrics_port is set, but {error.name} is not installed: pip install 'cloacina[metrics]', or leave it out"
        ) from error
    return Meters()


def _scrapes(meters: Meters, queue: Queue, index: Index, oddities: Oddities) -> Scrapes:
    from cloaca.processes.scrapes import Scrapes
    from cloacina_operator.hosts.metrics import State

    meters.registry.register(State(queue, index, oddities))
    return Scrapes(meters.registry)


async def _listen(scrapes: Scrapes, port: int) -> None:
    """On the loopback address only. Raises CloacaError where the port is taken."""
    try:
        await scrapes.start(port, LOOPBACK)
    except OSError as error:
        raise CloacaError(
            f"metrics cannot be served on {LOOPBACK}:{port}: {error.strerror or error}; set another metrics_port"
        ) from error


def prepare(settings: DaemonSettings) -> None:
    """Make the folders of the home. Raises CloacaError where that cannot be."""
    home = settings.home
    for folder in (home.root, *settings.watch_dirs):
        if not _is_utf_8(folder):
            raise CloacaError(f"the folder {str(folder)!a} cannot be watched: its path is not UTF-8: rename it")
    for folder in (home.root, home.packages, home.unpacked, home.logs):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "it is read-only")
        except OSError as error:
            raise CloacaError(
                f"the home {home.root} cannot be used: {folder}: {error.strerror or error}; "
                "make it writable, or use another one with --home"
            ) from error


def _is_utf_8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


async def serve(settings: DaemonSettings, overrides: dict[str, Any], lock: HomeLock) -> None:
    """Run the daemon of a home that is prepared and locked."""
    url = store_url(settings.home, settings.store)
    store = await open_archives(url)
    seat, usable = None, True
    try:
        seat = None if settings.store is None else await Seat.take(store, settings.home.root)
        guard = Guard(settings.home.root, url, lock)
        log.info("the store is %s", without_password(url))
        remove_stale_folders(settings.home, await store.list_archives())
        await Daemon(settings, store, url, seat, guard, overrides).run()
    except HomeLost as lost:
        usable = not lost.database
        raise
    finally:
        if seat is not None and usable:
            await seat.leave()
        if usable:
            await store.close()


def remove_stale_folders(home: Home, archives: Sequence[str]) -> None:
    """Remove what was unpacked of archives that are not kept any more, and what a crash left half unpacked."""
    wanted = {home.unpacked_archive(digest).name for digest in archives}
    for folder in home.unpacked.iterdir():
        if folder.name not in wanted:
            shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the daemon; returns its exit code."""
    open_standard_streams()
    unmask_owner()
    parser = argparse.ArgumentParser(prog="cloaca daemon", description="Reconcile packages, triggers and runs here.")
    parser.add_argument("--home", type=Path, help="instead of $CLOACINA_HOME or ~/.cloacina")
    parser.add_argument(
        "--store", help=f"URL of the store, instead of ${STORE_VARIABLE} or the SQLite file of the home"
    )
    parser.add_argument("--watch-dir", type=Path, action="append", default=[], help="deploy archives from here too")
    parser.add_argument(
        "--allow-shared-folders", action="store_true", help="accept folders that other users may write to"
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--log-format", choices=("text", "json"))
    given = parser.parse_args(arguments)
    overrides = {key: value for key in ("log_level", "log_format") if (value := getattr(given, key)) is not None}
    if named := given.store or os.environ.get(STORE_VARIABLE):
        overrides["store"] = named
    if given.allow_shared_folders:
        overrides["allow_shared_folders"] = True
    try:
        overrides["watch_dirs"] = tuple(absolute(folder) for folder in given.watch_dir)
        settings = read_settings(Home.find(given.home, os.environ), dict(overrides))
        set_up(settings.log_level, settings.log_format)
        prepare(settings)
        refuse_writable_by_others(settings, by_option=given.allow_shared_folders)
        with locked(settings.home.lock) as lock:
            asyncio.run(serve(settings, overrides, lock))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"cloaca daemon: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except CloacaError as error:
        print(f"cloaca daemon: {error}", file=sys.stderr, flush=True)
        if isinstance(error, HomeLost) and error.database:
            os._exit(1)  # an ordinary end would close the database: see HomeLost
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
