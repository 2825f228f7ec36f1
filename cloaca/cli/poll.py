"""The command ``poll``: one call of a trigger function, in a process of its own. Submits nothing, keeps no state."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from cloaca.cli.child_process import LONGEST_LINE, child
from cloaca.cli.session import Session, command, commands
from cloaca.cli.source import Unpacked, relative, unpacked
from cloaca.cli.tables import took
from cloaca.cli.terminal import block, remark, say, styled
from cloaca.cli.values import json_object
from cloaca.errors import CloacaError
from cloaca.packages.agreement import resolve_workflow
from cloaca.packages.inventory import Inventory
from cloaca.packages.manifest import TriggerEntry
from cloaca.packages.nearest import did_you_mean
from cloaca.polling.messages import Ended, Request, Yielded, parse_answer, request_line
from cloaca.resources.names import tick_run_name, trigger_object_name

app = commands()


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


@command(app, "poll")
def poll(
    session: Session,  # noqa: ARG001  # every command gets it
    path: Annotated[Path, typer.Argument(metavar="ARCHIVE|FOLDER", help="The package.", show_default=False)],
    trigger: Annotated[
        str | None,
        typer.Argument(help="Name in the decorator; may be left out where there is one.", show_default=False),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="JSON", help="Instead of the manifest's; or @FILE.", show_default=False)
    ] = None,
    state: Annotated[
        str | None, typer.Option(metavar="JSON", help="What it kept from the last poll; or @FILE.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that the call may take.")] = 60.0,
    output: Annotated[PollFormat, typer.Option("--output", "-o", help="How to show it.")] = PollFormat.TEXT,
) -> None:
    """Call a trigger once and show what it decides; nothing is submitted.

    A generator is stopped at its first fire: what stands after that yield is for when the run exists.

    \b
    Example:
      cloaca poll . inbox_watcher
      cloaca poll data-ingest-1.0.0.cloacina inbox_watcher --config '{"path": "/data/inbox"}'
    """
    given = None if config is None else json_object(config, "--config")
    kept = json_object(state, "--state")
    with unpacked(path) as package:
        entry = chosen_trigger(package, trigger)
        request = Request(id=1, trigger=entry.name, config=entry.config or {} if given is None else given, state=kept)
        decision = asyncio.run(decide(package, entry, request, timeout))
    if output is PollFormat.JSON:
        say(json.dumps(as_json(decision), indent=2, ensure_ascii=False))
    else:
        say(*told(decision, package, entry))
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


async def decide(package: Unpacked, entry: TriggerEntry, request: Request, timeout: float) -> Decision:
    """Call the function, and take its first answer. Raises CloacaError where it gives none."""
    ours, theirs = socket.socketpair()
    channel = theirs.fileno()
    with theirs:
        async with child(
            root=package.root, entry_module=package.manifest.entry_module, descriptors=[channel]
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


def told(decision: Decision, package: Unpacked, entry: TriggerEntry) -> list[str]:
    """The decision for a person."""
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
    if answer.state is not None:
        lines.append(f"State:      {json.dumps(answer.state, ensure_ascii=False)}")
    if isinstance(answer, Yielded):
        remark("note: the function yielded, and was stopped there: it goes on when the run exists")
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
