"""Take a command line apart, call the one command that it names, and say in a sentence what went wrong."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from cloaca.cli.place import Wanted
from cloaca.cli.session import (
    ContextOption,
    DebugOption,
    HomeOption,
    KubeconfigOption,
    KubernetesOption,
    Session,
    StoreOption,
)
from cloaca.cli.terminal import OutputLost
from cloaca.errors import CloacaError
from cloaca.home import unmask_owner
from cloaca.streams import open_standard_streams, silence


@dataclass(frozen=True)
class Entry:
    """One command: where it is, and what the list of commands says of it."""

    name: str
    module: str
    summary: str


SECTIONS: dict[str, tuple[Entry, ...]] = {
    "Write packages": (
        Entry("new", "scaffold", "Start a package: a folder that packs, checks and polls at once."),
        Entry("pack", "packages", "Pack a folder into a .cloacina archive."),
        Entry("check", "packages", "Check an archive or a folder: all that could keep it from being accepted."),
        Entry("poll", "poll", "Call a trigger once and show what it decides; nothing is submitted."),
        Entry("run", "run", "Run a workflow: of a path here and now, or of a deployed package."),
    ),
    "Deploy and look": (
        Entry("daemon", "daemon", "Run the daemon: it deploys, polls and runs on this machine."),
        Entry("deploy", "deploy", "Deploy an archive of this machine: here, or on a cluster."),
        Entry("status", "status", "Say whether a daemon runs, what there is, and what is not ready and why."),
        Entry("apply", "apply", "Create or update objects from files."),
        Entry("get", "get", "Show objects as a table, YAML or JSON."),
        Entry("describe", "describe", "Tell everything about objects: above all why they did or did not run."),
        Entry("history", "history", "Show what the last polls of a trigger did, and why."),
        Entry("watch", "live", "Watch packages, triggers and runs as they change."),
        Entry("logs", "logs", "Show what a run or a package printed."),
    ),
    "Act": (
        Entry("fire", "fire", "Fire a trigger by hand."),
        Entry("replay", "replay", "Run once more what a run was given."),
        Entry("suspend", "switch", "Stop polling a trigger or a package; runs that exist finish."),
        Entry("resume", "switch", "Poll a trigger or a package again."),
        Entry("cancel", "switch", "Cancel a run."),
        Entry("delete", "delete", "Delete objects, and everything that they own."),
    ),
    "Other": (Entry("version", "status", "Show the version."),),
}


class Commands(TyperGroup):
    """The commands, each imported when it is called or asked for help: the list of them costs no import."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the signature is typer's
        """Their names, in the order of the help."""
        return [entry.name for entries in SECTIONS.values() for entry in entries]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  # the signature is typer's
        """The command, with its module imported; None: there is none of that name."""
        if cmd_name not in self.commands:
            entry = next((e for entries in SECTIONS.values() for e in entries if e.name == cmd_name), None)
            if entry is None:
                return None
            found = typer.main.get_command(importlib.import_module(f"cloaca.cli.{entry.module}").app)
            self.commands[cmd_name] = found.commands[cmd_name] if isinstance(found, TyperGroup) else found
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Also for a name that is none: say which one is close."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from cloaca.packages.nearest import did_you_mean

            ctx.fail(f"there is no command {args[0]!r}{did_you_mean(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # the signature is typer's
        """The list, by what one wants to do."""
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(entry.name.ljust(8), entry.summary) for entry in entries])


app = typer.Typer(
    name="cloaca",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: it looks the same in a terminal, a pipe and a log
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def root(
    ctx: typer.Context,
    kube_context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
    kubernetes: KubernetesOption = False,
    home: HomeOption = None,
    store: StoreOption = None,
    debug: DebugOption = False,
) -> None:
    """Workflows and the triggers that fire them: packed, deployed, polled, run.

    \b
    Example:
      cloaca new my-package
      cloaca pack my-package
      cloaca daemon
    """
    wanted = Wanted(home=home, store=store, kube_context=kube_context, kubeconfig=kubeconfig, kubernetes=kubernetes)
    ctx.ensure_object(Session).hear(wanted, debug)


def main(arguments: Sequence[str] | None = None) -> int:
    """Obey the command line and return its exit code: 0 done, 1 it failed, 2 it was called wrongly.

    Done means that what was asked for has happened. A command that changes something has done so even if it could not
    print that. One that shows something has not, unless the reader left with what it wanted (``cloaca get | head``).
    """
    open_standard_streams()
    unmask_owner()
    session = Session()
    _clean_up_on_sigterm()
    code = _obey(arguments, session)
    try:
        sys.stdout.flush()
    except OSError as error:  # of the help, say: commands flush what they print
        silence(sys.stdout)
        return _lost(OutputLost(error), session) if code == 0 else code
    return code


def _obey(arguments: Sequence[str] | None, session: Session) -> int:
    output, errors = sys.stdout, sys.stderr
    try:
        typer.main.get_command(app).main(
            args=None if arguments is None else list(arguments), prog_name="cloaca", obj=session
        )
    except SystemExit as ended:
        if sys.stdout is not output:  # typer wraps it where the reader of a help page has left
            sys.stdout, sys.stderr = output, errors
            silence(output)
            return 0
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except OutputLost as error:
        return _lost(error, session)
    except (CloacaError, OSError) as error:
        _complain(str(error) if isinstance(error, CloacaError) else _of_the_system(error), error, session)
        return 1
    except Exception as error:  # noqa: BLE001  # the last resort: a person gets a sentence, --debug the rest
        hint = "" if session.debug else "; this is a fault of cloaca: run it again with --debug and report what it says"
        _complain(f"{type(error).__name__}: {error}{hint}", error, session)
        return 1
    return 0


def _lost(error: OutputLost, session: Session) -> int:
    if error.reader_left:
        return 0
    _complain(str(error), error, session)
    return 1


def _clean_up_on_sigterm() -> None:
    """Let SIGTERM end a command as an interrupt does: what it started, and what it unpacked, goes with it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)


def _terminated(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _complain(sentence: str, error: Exception, session: Session) -> None:
    if session.debug:
        traceback.print_exception(error)
    print(f"Error: {sentence}", file=sys.stderr)


def _of_the_system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


if __name__ == "__main__":
    sys.exit(main())
