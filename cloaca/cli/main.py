"""Take a command line apart, call the one command that it names, and say in a sentence what went wrong."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
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
from cloaca.errors import CloacaError


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
    """Obey the command line and return its exit code: 0 done, 1 it failed, 2 it was called wrongly."""
    session = Session()
    try:
        typer.main.get_command(app).main(
            args=None if arguments is None else list(arguments), prog_name="cloaca", obj=session
        )
    except SystemExit as ended:
        return _flushed(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    except (CloacaError, OSError) as error:
        _complain(str(error) if isinstance(error, CloacaError) else _of_the_system(error), error, session)
        return 1
    except Exception as error:  # noqa: BLE001  # the last resort: a person gets a sentence, --debug the rest
        hint = "" if session.debug else "; this is a fault of cloaca: run it again with --debug and report what it says"
        _complain(f"{type(error).__name__}: {error}{hint}", error, session)
        return 1
    return _flushed(0)


def _complain(sentence: str, error: Exception, session: Session) -> None:
    if session.debug:
        traceback.print_exception(error)
    print(f"Error: {sentence}", file=sys.stderr)


def _of_the_system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _flushed(code: int) -> int:
    """``code``, once everything is written; whoever read it may be gone (``cloaca get … | head``)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 1
    return code


if __name__ == "__main__":
    sys.exit(main())
