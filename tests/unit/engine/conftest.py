"""Executes workflows with everything real but the store: what is recorded stays in a list."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import hypothesis
import pytest

from cloaca.authoring.registry import collecting
from cloaca.authoring.workflow import Workflow
from cloaca.engine.crew import Crew
from cloaca.engine.execute import Stop, Workshop, execute
from cloaca.engine.record import Record
from cloaca.engine.slots import Slots
from cloaca.engine.timers import Timers
from cloaca.resources.phases import TaskPhase
from cloaca.resources.recorded import RecordedStatus


class Engine:
    """Runs workflows; ``written`` has every status that was recorded, oldest first."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.written: list[RecordedStatus] = []
        self.stop: Stop | None = None
        self.slots = Slots(4)

    waits = False

    def write(self, record: Record) -> None:
        self.written.append(record.status)

    async def run(
        self,
        workflow: Workflow,
        context: Mapping[str, Any] | None = None,
        *,
        recorded: RecordedStatus | None = None,
        slots: int = 4,
        timeout: float | None = None,
        limit: int = 256 * 1024,
    ) -> RecordedStatus:
        self.stop = Stop()
        self.slots = Slots(slots)
        loop = asyncio.get_running_loop()
        workshop = Workshop(
            crew=self.crew,
            loop=loop,
            timers=Timers(loop),
            slots=self.slots,
            task_timeout=timeout,
            context_limit=limit,
        )
        return await execute(workflow, context or {}, recorded or RecordedStatus(), self, workshop, self.stop)

    def seen(self, task: str) -> list[TaskPhase]:
        """The phases of a task, one a recorded status."""
        return [entry.phase for status in self.written for entry in status.tasks if entry.id == task]


hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True)
def registry() -> Iterator[Any]:
    """What a test defines ends with the test."""
    with collecting() as registry:
        yield registry


@pytest.fixture
def engine() -> Iterator[Engine]:
    crew = Crew(64)
    yield Engine(crew)
    crew.shutdown()
