"""The command ``poll``: one call of a trigger function, in a process of its own. Submits nothing, keeps no state."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cloaca.cli import dry_run
from cloaca.cli.child_process import LONGEST_LINE, child
from cloaca.cli.place import Cluster
from cloaca.cli.session import NamespaceOption, Session, command, commands
from cloaca.cli.source import Unpacked, is_path, relative, unpacked
from cloaca.cli.tables import took
from cloaca.cli.terminal import block, json_text, print_answer, remark, styled
from cloaca.cli.values import json_object, text_argument
from cloaca.errors import CloacaError
from cloaca.packages.agreement import resolve_workflow
from cloaca.packages.inventory import Inventory
from cloaca.packages.manifest import TriggerEntry
from cloaca.packages.nearest import did_you_mean
from cloaca.packages.scratch import scratch_folder
from cloaca.polling.messages import Ended, Request, Yielded, parse_answer, request_line
from cloaca.resources.names import tick_run_name, trigger_object_name
from cloaca.store import Store

app = commands()

S = TypeVar("S", bound=Store)

DEFAULT_TIMEOUT = 60.0  # seconds
_TRIGGER_WORDS = ("ctrig", "trigger", "triggers", "trigger.cloacina.io", "triggers.cloacina.io")


class PollFormat(str, Enum):
    """How the decision is shown."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one call of the function gave."""

    answer: Yielded | Ended
    seconds: float
    workflow: str

    @property
    def word(self) -> str:
        """Fire, Skip or Error."""
        if isinstance(self.answer, Ended) and self.answer.error is not None:
            return "Error"
        return "Fire" if self.answer.fires else "Skip"


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a person wants otherwise than the Trigger has it; None: as it has it."""

    config: dict[str, Any] | None
    state: dict[str, Any] | None
    timeout: float | None


@command(app, "poll")
def poll(
    session: Session,
    what: Annotated[
        str,
        typer.Argument(metavar="TRIGGER|ARCHIVE|FOLDER", help="A deployed Trigger, or a package.", show_default=False),
    ],
    trigger: Annotated[
        str | None,
        typer.Argument(help="Of a package: name in the decorator, where it has several.", show_default=False),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="JSON", help="Instead of its own; or @FILE.", show_default=False)
    ] = None,
    state: Annotated[
        str | None, typer.Option(metavar="JSON", help="What it kept from the last poll; or @FILE.", show_default=False)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds, instead of the Trigger's, or 60.", show_default=False)
    ] = None,
    output: Annotated[PollFormat, typer.Option("--output", "-o", help="How to show it.")] = PollFormat.TEXT,
    namespace: NamespaceOption = "",
) -> None:
    """Call a trigger once and show what it decides; nothing is submitted.

    A generator is stopped at its first fire: what stands after that yield is for when the run exists. Whatever exists
    as a file or folder is a package. Anything else is a deployed Trigger: its function gets the config, the state and
    the environment that its poller gives it, and each fire its verdict: would fire, deduplicated, blocked. Of a Trigger
    on a cluster the function is called on this machine, without the Secrets and volumes of its pods.

    \b
    Example:
      cloaca poll data-ingest-inbox-watcher
      cloaca poll . inbox_watcher
      cloaca poll data-ingest-1.0.0.cloacina inbox_watcher --config '{"path": "/data/inbox"}'
    """
    trigger = None if trigger is None else text_argument(trigger)
    given = None if config is None else json_object(config, "--config")
    kept = None if state is None else json_object(state, "--state")
    kind, slash, _ = what.partition("/")
    if (slash and kind in _TRIGGER_WORDS) or not is_path(what):
        place = session.place
        overrides = Overrides(config=given, state=kept, timeout=timeout)
        called = partial(_poll_deployed, what.rpartition("/")[2], namespace, overrides, output)
        if isinstance(place, Cluster):
            session.with_cluster(place, partial(called, dry_run.mounted))
        else:
            session.with_store(partial(called, dry_run.kept))
        return
    with unpacked(Path(what)) as package:
        entry = chosen_trigger(package, trigger)
        request = Request(
            id=1, trigger=entry.name, config=entry.config or {} if given is None else given, state=kept or {}
        )
        decision = asyncio.run(decide(package, entry, request, timeout or DEFAULT_TIMEOUT))
    _show(decision, told(decision, package, entry), as_json(decision), output)


async def _poll_deployed(
    name: str,
    namespace: str,
    overrides: Overrides,
    output: PollFormat,
    archive: Callable[[S, dry_run.Deployed], Awaitable[bytes | None]],
    store: S,
) -> None:
    of = await dry_run.deployed(store, name, namespace)
    with scratch_folder() as folder:
        package = await dry_run.unpacked_from(await archive(store, of), of, folder)
        entry = chosen_trigger(package, of.trigger.spec.name)
        request = of.request
        request = replace(
            request,
            config=request.config if overrides.config is None else overrides.config,
            state=request.state if overrides.state is None else overrides.state,
        )
        decision = await decide(package, entry, request, overrides.timeout or of.timeout, of.environment)
        fires = await dry_run.verdicts(store, of, decision.answer)
    if archive is dry_run.mounted and (missing := dry_run.beyond(of.package)):
        remark(f"note: the call had not, what the poller's pod has: {'; '.join(missing)}")
    data = as_json(decision)
    for shown, one in zip(data["fires"], fires, strict=True):
        shown |= {"run": one.run, "verdict": one.verdict}
    _show(decision, told(decision, package, entry, dry_run.told(of, fires)), data, output)


def _show(decision: Decision, text: list[str], data: dict[str, Any], output: PollFormat) -> None:
    if output is PollFormat.JSON:
        print_answer(json_text(data))
    else:
        print_answer(*text)
    if decision.word == "Error":
        raise typer.Exit(1)


def chosen_trigger(package: Unpacked, wanted: str | None) -> TriggerEntry:
    """The trigger that is meant: the one that is named, or the only one."""
    entries = {entry.name: entry for entry in package.manifest.triggers}
    whose = f"package {package.manifest.name!r}"
    if wanted is None and len(entries) == 1:
        return next(iter(entries.values()))
    listed = ", ".join(entries) or "none"
    if wanted is None:
        raise CloacaError(f"{whose} has {len(entries)} triggers: say which one to poll: {listed}")
    if wanted not in entries:
        raise CloacaError(f"{whose} has no trigger {wanted!r}{did_you_mean(wanted, entries) or f'; it has: {listed}'}")
    return entries[wanted]


async def decide(
    package: Unpacked,
    entry: TriggerEntry,
    request: Request,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> Decision:
    """Call the function, and take its first answer. Raises CloacaError where it gives none."""
    ours, theirs = socket.socketpair()
    channel = theirs.fileno()
    with theirs:
        async with child(
            root=package.root,
            entry_module=package.manifest.entry_module,
            descriptors=[channel],
            environment=environment,
        ) as process:
            theirs.close()
            process.do({"op": "poll", "channel": channel})
            reader, writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)
            begun = time.monotonic()
            writer.write(request_line(request))
            try:
                line = await asyncio.wait_for(reader.readline(), timeout)
            except asyncio.TimeoutError:
                raise CloacaError(
                    f"trigger {entry.name!r} took longer than {timeout:g} s and was stopped: find out what it waits "
                    "for, or give it --timeout"
                ) from None
            seconds = time.monotonic() - begun
            writer.close()
            if not line:
                how = await process.ended()
                raise CloacaError(f"trigger {entry.name!r} ended its process ({how}): a trigger must return or raise")
            workflow = _workflow(package, entry, process.inventory)
            return Decision(answer=parse_answer(line), seconds=seconds, workflow=workflow)


def _workflow(package: Unpacked, entry: TriggerEntry, inventory: Inventory) -> str:
    known = inventory.task_ids_by_workflow()
    return resolve_workflow(entry.workflow, package.manifest.name, known) or entry.workflow


def told(decision: Decision, package: Unpacked, entry: TriggerEntry, fires: Sequence[str] | None = None) -> list[str]:
    """The decision for a person; ``fires`` are the lines about them, None: of a package that is not deployed."""
    answer = decision.answer
    lines = [
        f"Trigger:    {entry.name} of {package.manifest.name} {package.manifest.version}",
        f"Decision:   {styled(decision.word)}, after {took(decision.seconds)}",
    ]
    if isinstance(answer, Ended) and answer.error is not None:
        return [
            *lines,
            f"Error:      {answer.error}",
            *block(relative(answer.traceback or "", package).rstrip().splitlines()),
        ]
    if isinstance(answer, Ended) and answer.reason:
        lines.append(f"Reason:     {answer.reason}")
    lines += _fires(decision, package, entry) if fires is None else fires
    if answer.state is not None:
        lines.append(f"State:      {json.dumps(answer.state, ensure_ascii=False)}")
    if isinstance(answer, Yielded):
        remark("note: the function yielded, and was stopped there: it goes on when the run exists")
    return lines


def _fires(decision: Decision, package: Unpacked, entry: TriggerEntry) -> list[str]:
    answer, lines = decision.answer, []
    name = trigger_object_name(package.manifest.name, entry.name)
    several = len(answer.fires) > 1
    for index, fire in enumerate(answer.fires):
        run = (
            f"{name}-<hash of its key>" if fire.key is not None else tick_run_name(name, 1, index if several else None)
        )
        lines.append(f"Run:        {run}, of workflow {decision.workflow}; nothing was submitted")
        if fire.key is not None:
            lines.append(f"  Key:      {fire.key}")
        context = json.dumps(fire.context, indent=2, ensure_ascii=False).splitlines()
        lines += [f"  Context:  {context[0]}", *block(context[1:], " " * 12)]
    return lines


def as_json(decision: Decision) -> dict[str, Any]:
    """The decision for a program."""
    answer = decision.answer
    ended = answer if isinstance(answer, Ended) else None
    return {
        "decision": decision.word,
        "workflow": decision.workflow,
        "fires": [{"key": fire.key, "context": fire.context} for fire in answer.fires],
        "state": answer.state,
        "reason": ended.reason if ended else "",
        "error": ended.error if ended else None,
        "goesOn": ended is None,
    }
