"""Follow one run to its end and say what happens on the way. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from cloaca.cli.tables import took
from cloaca.cli.terminal import styled
from cloaca.errors import CloacaError
from cloaca.resources import RunPhase, TaskPhase, WorkflowRun
from cloaca.resources.conditions import RunCondition, find
from cloaca.resources.ref import Ref
from cloaca.store import Store

Say = Callable[[str], None]


async def follow_run(store: Store, ref: Ref, say: Say, begun: asyncio.Event | None = None) -> WorkflowRun:
    """The run, once it has ended. ``begun`` is set when nothing of it can be missed any more."""
    told = Told(say)
    async with store.changes() as changes:
        if begun is not None:
            begun.set()
        run = await store.get(WorkflowRun, ref.name, ref.namespace)
        told.hear(run)
        if run is not None and run.status.phase.finished:
            return run
        async for change in changes:
            if change.ref != ref:
                continue
            run = await store.get(WorkflowRun, ref.name, ref.namespace)
            if run is None:
                raise CloacaError(f"run {ref.name!r} was deleted before it ended")
            told.hear(run)
            if run.status.phase.finished:
                return run
    raise CloacaError(f"the store ended before run {ref.name!r} did: see `cloaca describe crun {ref.name}`")


class Told:
    """Says of a run what was not said before: what it waits for, and each task's phases."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._phases: dict[str, TaskPhase] = {}
        self._waiting = ""

    def hear(self, run: WorkflowRun | None) -> None:
        """Say what is new about it."""
        if run is None:
            return
        started = find(run.status.conditions, RunCondition.STARTED)
        if run.status.phase is RunPhase.PENDING and started is not None and started.status.value == "False":
            self._wait(started.message or started.reason)
        width = max((len(task.id) for task in run.status.tasks), default=0)
        for task in run.status.tasks:
            known = self._phases.get(task.id, TaskPhase.PENDING)
            self._phases[task.id] = task.phase
            if task.phase is not known:
                time = _span(task.started_at, task.finished_at) if task.phase.finished else ""
                line = f"  {task.id.ljust(width)}   {styled(task.phase.value.ljust(9))}   {time.ljust(6)}"
                self._say(f"{line} {(task.message or '').strip()}".rstrip())

    def _wait(self, sentence: str) -> None:
        if sentence != self._waiting:
            self._waiting = sentence
            self._say(f"  waits: {sentence}")


def _span(start: datetime | None, end: datetime | None) -> str:
    return took((end - start).total_seconds()) if start and end else ""


def time_taken(run: WorkflowRun) -> str:
    """How long it ran; empty where it did not, or has not ended."""
    return _span(run.status.started_at, run.status.finished_at)


def verdict(run: WorkflowRun) -> str:
    """How it ended, in a line."""
    time = time_taken(run)
    message = f": {run.status.message.strip()}" if run.status.message else ""
    return f"{styled(run.status.phase.value)}{f' in {time}' if time else ''}{message}"


def succeeded(run: WorkflowRun) -> bool:
    """Whether what it was to do is done: a repeated fire was done before."""
    return run.status.phase in (RunPhase.COMPLETED, RunPhase.DEDUPLICATED)
