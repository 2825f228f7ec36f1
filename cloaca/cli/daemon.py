"""The command ``daemon``: this process becomes the daemon, so that nothing of the command line stays in its memory."""

from __future__ import annotations

import importlib.util
import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cloaca.cli.place import Wanted
from cloaca.cli.session import Session, command, commands
from cloaca.errors import CloacaError
from cloaca.packages.process import python_command

app = commands()

OPERATOR = "cloacina_operator"
HOST = f"{OPERATOR}.hosts.daemon"


class Level(str, Enum):
    """How much the daemon says."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(str, Enum):
    """How it says it."""

    TEXT = "text"
    JSON = "json"


@command(app, "daemon", anywhere=False)
def daemon(
    session: Session,
    watch_dir: Annotated[
        list[Path] | None, typer.Option(help="Deploy the archives of this folder too; repeatable.")
    ] = None,
    allow_shared_folders: Annotated[
        bool, typer.Option("--allow-shared-folders", help="Accept folders that other users may write to.")
    ] = False,
    log_level: Annotated[Level | None, typer.Option(help="How much it says.", show_default=False)] = None,
    log_format: Annotated[LogFormat | None, typer.Option(help="How it says it.", show_default=False)] = None,
) -> None:
    """Run the daemon: it deploys, polls and runs on this machine.

    Archives that are copied into the folder packages of its home are deployed. SIGTERM and Ctrl-C let what is under
    way end; a second Ctrl-C leaves at once.

    \b
    Example:
      cloaca daemon
      cloaca daemon --home ./home --watch-dir ./dist --log-level debug
      cloaca daemon --store postgresql://me@localhost/workflows
    """
    if importlib.util.find_spec(OPERATOR) is None:
        raise CloacaError(f"the daemon is not installed here: {OPERATOR} is missing; install cloacina whole")
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"  # packages and paths are UTF-8, and what watches folders knows nothing else
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = daemon_arguments(session.wanted, watch_dir or [], log_level, log_format)
    arguments += ["--allow-shared-folders"] if allow_shared_folders else []
    os.execv(sys.executable, [*python_command(HOST), *arguments])  # noqa: S606  # our own arguments


def daemon_arguments(
    wanted: Wanted, watch_dirs: list[Path], log_level: Level | None, log_format: LogFormat | None
) -> list[str]:
    """The daemon's own options; what was not given is left to it."""
    arguments = [] if wanted.home is None else ["--home", str(wanted.home)]
    arguments += [] if wanted.store is None else ["--store", wanted.store]
    for folder in watch_dirs:
        arguments += ["--watch-dir", str(folder)]
    arguments += [] if log_level is None else ["--log-level", log_level.value]
    return arguments + ([] if log_format is None else ["--log-format", log_format.value])
