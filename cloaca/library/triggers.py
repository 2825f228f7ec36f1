"""Triggers of the program itself, polled by its runner: each in its own time, so that one which hangs delays no other.

On a database that several runners share, one of them polls a trigger; when it ends, another takes over.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from cloaca.authoring.context import Context
from cloaca.authoring.registry import Registry
from cloaca.authoring.trigger import TriggerDefinition
from cloaca.authoring.workflow import Workflow
from cloaca.engine.crew import Crew
from cloaca.errors import AlreadyExists, CloacaError, Conflict, NotFound, ScheduleNotFound
from cloaca.failure import failure_of, one_line
from cloaca.library.cron import Submit, iso, page
from cloaca.library.poll import Poll, PollFailed
from cloaca.library.presence import Presence
from cloaca.polling import schedule
from cloaca.polling.messages import Fire
from cloaca.resources.meta import ObjectMeta
from cloaca.resources.names import (
    TRIGGER_LABEL,
    digest,
    keyed_run_name,
    label_value,
    object_name,
    run_labels,
    tick_run_name,
)
from cloaca.resources.run import RunSpec, WorkflowRun
from cloaca.resources.schedules import TriggerSchedule, TriggerScheduleSpec
from cloaca.store import Store

log = logging.getLogger("cloaca.library")

POLL_TIMEOUT = 60.0  # seconds without an answer, from one yield to the next
_LOOK_AGAIN = 1.0  # seconds until a trigger that another runner polls, or that is disabled, is looked at again
_WRITTEN_EVERY = timedelta(minutes=1)


@dataclass
class _Polled:
    definition: TriggerDefinition
    errors: int = 0
    poll: Poll | None = None  # the last one
    last_poll: datetime | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class TriggerSchedules:
    """The triggers that this program registered with a workflow. Belongs to the runner's loop."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        presence: Presence,
        crew: Crew,
        submit: Submit,
        keep: Callable[[Coroutine[Any, Any, None]], Awaitable[None]],
        *,
        recovers: bool,
    ) -> None:
        """``recovers``: whether this runner resumes what dead ones left; where not, that holds no trigger up."""
        self._store = store
        self._registry = registry
        self._presence = presence
        self._crew = crew
        self._submit = submit
        self._keep = keep
        self._recovers = recovers
        self._polled: dict[str, _Polled] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns: dict[str, asyncio.Lock] = {}  # by the trigger's label

    # --- what a program asks for

    async def listed(self, enabled_only: bool, limit: int | None, offset: int | None) -> list[dict[str, Any]]:
        found = [self._shown(definition, await self._row(definition)) for definition in self._ours().values()]
        return page([entry for entry in found if entry["enabled"] or not enabled_only], limit, offset)

    async def get(self, name: str) -> dict[str, Any] | None:
        definition = self._named(name)
        return None if definition is None else self._shown(definition, await self._row(definition))

    async def set_enabled(self, name: str, enabled: bool) -> None:
        definition = self._named(name)
        if definition is None:
            known = ", ".join(sorted(self._ours())) or "none"
            raise ScheduleNotFound(f"Failed to set trigger: none is registered as {name!r}; registered: {known}")
        while True:
            row = await self._row(definition)
            try:
                await self._store.update(row.with_spec(enabled=enabled, changed_at=datetime.now(timezone.utc)))
            except (Conflict, NotFound):
                continue
            break
        if name in self._polled:
            self._polled[name].wake.set()

    async def history(self, name: str, limit: int | None, offset: int | None) -> list[dict[str, Any]]:
        if not isinstance(name, str):
            return []
        row = await self._store.get(TriggerSchedule, _row_name(name))
        runs = await self._store.list(WorkflowRun, labels={TRIGGER_LABEL: label_value(name)})
        entries = [] if row is None else [_shown_fire(run, row) for run in runs if run.spec.package_ref is None]
        return page(sorted(entries, key=lambda entry: entry["created_at"], reverse=True), limit, offset)

    def _named(self, name: object) -> TriggerDefinition | None:
        return self._ours().get(name) if isinstance(name, str) else None

    def _ours(self) -> Mapping[str, TriggerDefinition]:
        known = dict(self._registry.triggers)
        return {name: definition for name, definition in known.items() if definition.workflow is not None}

    async def _row(self, definition: TriggerDefinition) -> TriggerSchedule:
        while True:
            row = await self._store.get(TriggerSchedule, _row_name(definition.name))
            if row is not None:
                return row
            spec = TriggerScheduleSpec(trigger=definition.name, changed_at=datetime.now(timezone.utc))
            try:
                return await self._store.create(
                    TriggerSchedule(metadata=ObjectMeta(name=_row_name(definition.name)), spec=spec)
                )
            except AlreadyExists:
                continue

    def _shown(self, definition: TriggerDefinition, row: TriggerSchedule) -> dict[str, Any]:
        polled = self._polled.get(definition.name)
        last = (polled.last_poll if polled is not None else None) or row.status.last_poll_at
        return {
            "id": row.metadata.uid,
            "trigger_name": definition.name,
            "workflow_name": definition.workflow,
            "poll_interval_ms": round(definition.interval_seconds * 1000),
            "allow_concurrent": definition.allow_concurrent,
            "enabled": row.spec.enabled,
            "last_poll_at": iso(last),
            "created_at": iso(row.metadata.creation_timestamp),
            "updated_at": iso(row.spec.changed_at),
        }

    # --- polling

    def adopt(self) -> None:
        """Begin to poll what was registered since the last call; end what was registered anew or is gone."""
        ours = self._ours()
        for name, polled in list(self._polled.items()):
            if ours.get(name) is not polled.definition:
                self._tasks.pop(name).cancel()
                del self._polled[name]
        for name, definition in ours.items():
            if name not in self._polled:
                self._polled[name] = _Polled(definition)
                self._tasks[name] = asyncio.get_running_loop().create_task(self._keep_polling(self._polled[name]))

    async def stop(self) -> None:
        """Poll no more; fires that are under way are recorded by their own tasks."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _keep_polling(self, polled: _Polled) -> None:
        loop = asyncio.get_running_loop()
        interval, name = polled.definition.interval_seconds, polled.definition.name
        while True:
            polled.wake.clear()
            chance = random.random()
            if polled.errors:
                due = schedule.after_errors(now=loop.time(), interval=interval, errors=polled.errors, chance=chance)
            else:
                due = schedule.next_poll(now=loop.time(), interval=interval, uid=name, chance=chance)
            await asyncio.sleep(due - loop.time())
            try:
                row = await self._claimed(polled.definition)
                if row is None:
                    await _until(polled.wake, _LOOK_AGAIN)
                    continue
                if not polled.definition.allow_concurrent and await self._is_active(row):
                    continue
                await self._poll(polled, row)
                polled.errors = 0
            except Exception as error:  # noqa: BLE001  # whatever user code or a store away raises
                polled.errors += 1
                said = str(error) if isinstance(error, PollFailed) else failure_of(error).message
                log.warning("trigger %s: poll failed: %s", name, one_line(said))

    async def _claimed(self, definition: TriggerDefinition) -> TriggerSchedule | None:
        """The trigger's row where this runner may poll it now; None: it is disabled, or another runner polls it."""
        row = await self._row(definition)
        if not row.spec.enabled or definition.workflow not in self._registry.workflows:
            return None
        return await self._held(row)

    async def _held(self, row: TriggerSchedule) -> TriggerSchedule | None:
        """``row`` where this runner is the one that the trigger belongs to, or becomes it now; None: another one is."""
        if row.status.holder == self._presence.name:
            return row
        if row.status.holder is not None and await self._presence.is_alive(row.status.holder):
            return None
        try:
            claimed = await self._store.write_status(row.with_status(holder=self._presence.name))
        except (Conflict, NotFound):
            return None
        return cast(TriggerSchedule, claimed)

    async def _is_active(self, row: TriggerSchedule) -> bool:
        """Whether the run that the trigger made last goes on: then there is no poll."""
        if row.status.last_run is None:
            return False
        run = await self._store.get(WorkflowRun, row.status.last_run)
        if run is None or run.status.phase.finished:
            return False
        return self._recovers or run.status.pod_name is None or await self._presence.is_alive(run.status.pod_name)

    async def _poll(self, polled: _Polled, row: TriggerSchedule) -> None:
        if polled.poll is not None and polled.poll.running:
            raise CloacaError(f"the call before has not returned after {POLL_TIMEOUT:g} s and still hangs")
        definition = polled.definition
        polled.last_poll = now = datetime.now(timezone.utc)

        async def publish(fires: tuple[Fire, ...]) -> None:
            await self._keep(self._fire(definition, fires))

        polled.poll = Poll(definition, publish, self._crew)
        await polled.poll.run(POLL_TIMEOUT)
        before = row.status.last_poll_at  # later than now where the clock was set back
        long_ago = before is None or abs(now - before) > _WRITTEN_EVERY
        if long_ago and not polled.poll.published:
            await self._store.write_status(row.with_status(last_poll_at=now))

    async def _fire(self, definition: TriggerDefinition, fires: tuple[Fire, ...]) -> None:
        """Make the runs: each under a name that is this trigger's and this fire's, whoever makes it.

        Returns when they are durable. Raises CloacaError where the trigger is no longer polled here.
        """
        for fire in fires:
            row = await self._claimed(definition)
            workflow = self._registry.workflows.get(definition.workflow or "")
            if row is None or workflow is None:
                raise CloacaError("a fire is dropped: the trigger was switched off meanwhile")
            sequence = row.status.sequence
            if fire.key is not None:
                run = _run(definition, workflow, fire, keyed_run_name(row.name, row.metadata.uid, fire.key))
                made = await self._submit(workflow, run)
            else:
                made = False
                while not made:  # names that a process took just before it died are left out
                    sequence += 1
                    run = _run(definition, workflow, fire, tick_run_name(row.name, sequence))
                    made = await self._submit(workflow, run)
            if made:
                last = {"last_run": run.name, "sequence": sequence, "last_poll_at": datetime.now(timezone.utc)}
                await self._note(definition, last)

    async def may_resume(self, run: WorkflowRun) -> bool:
        """Whether ``run``, which a dead runner left, is for this one: a trigger's, for whoever holds the trigger.

        So all of them come to one runner, in which they take turns; two that recover at once would let them overlap.
        They wait for a program that has the trigger, as a run does for one that has its workflow.
        """
        label = run.metadata.labels.get(TRIGGER_LABEL)
        if label is None:
            return True
        definition = next((ours for name, ours in self._ours().items() if label_value(name) == label), None)
        if definition is None:
            return False
        return definition.allow_concurrent or await self._held(await self._row(definition)) is not None

    def turn(self, run: WorkflowRun) -> AbstractAsyncContextManager[Any]:
        """What to hold while ``run`` is executed: runs of one trigger go one after the other, unless it allows more.

        They take their turns in the order in which they ask.
        """
        label = run.metadata.labels.get(TRIGGER_LABEL)
        if label is None or any(
            definition.allow_concurrent and label_value(name) == label for name, definition in self._ours().items()
        ):
            return nullcontext()
        return self._turns.setdefault(label, asyncio.Lock())

    async def _note(self, definition: TriggerDefinition, changes: Mapping[str, Any]) -> None:
        while True:
            row = await self._row(definition)
            try:
                await self._store.write_status(row.with_status(**changes))
            except (Conflict, NotFound):
                continue
            return


async def _until(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except (asyncio.TimeoutError, TimeoutError):
        return


def _row_name(trigger: str) -> str:
    return object_name(trigger, 40)


def _run(definition: TriggerDefinition, workflow: Workflow, fire: Fire, name: str) -> WorkflowRun:
    return WorkflowRun(
        metadata=ObjectMeta(name=name, labels=run_labels(trigger=definition.name, workflow=workflow.name)),
        spec=RunSpec(workflow=workflow.name, context=fire.context, key=fire.key),
    )


def _shown_fire(run: WorkflowRun, row: TriggerSchedule) -> dict[str, Any]:
    return {
        "id": run.metadata.uid,
        "schedule_id": row.metadata.uid,
        "context_hash": digest(Context(run.spec.context).to_json(), length=16),
        "workflow_execution_id": run.metadata.uid,
        "started_at": iso(run.status.started_at),
        "completed_at": iso(run.status.finished_at),
        "created_at": iso(run.metadata.creation_timestamp),
    }
