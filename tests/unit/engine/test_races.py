"""Many runs at once in few slots, stopped, timed out, retried and deferred at random: none hangs, no slot is lost."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

import cloaca
from cloaca.authoring.workflow import Workflow
from cloaca.engine.crew import Crew
from cloaca.engine.execute import Stop, StopReason, Workshop, execute
from cloaca.engine.record import Record
from cloaca.engine.slots import Slots
from cloaca.engine.timers import Timers
from cloaca.resources.phases import RunPhase
from cloaca.resources.recorded import RecordedStatus

RUNS = 60


class Journal:
    """Keeps what was recorded last; it waits now and then."""

    def __init__(self, chance: random.Random, *, waits: bool) -> None:
        self.waits = waits
        self._chance = chance
        self.last: RecordedStatus | None = None

    def write(self, record: Record) -> None:
        assert self.last is None or not self.last.phase.finished, "written after its end"
        time.sleep(self._chance.random() * 0.002)
        self.last = record.status


def workflow(chance: random.Random, name: str) -> Workflow:
    """Six tasks of any kind, each after some of those before it."""
    with cloaca.WorkflowBuilder(name) as builder:
        for number in range(6):
            needs = [f"t{before}" for before in range(number) if chance.random() < 0.4]
            options: dict[str, Any] = {"retry_attempts": chance.randint(0, 2), "retry_delay_ms": 1}
            if chance.random() < 0.3:
                options["timeout_seconds"] = 0.005
            cloaca.task(id=f"t{number}", dependencies=needs, **options)(_function(chance))
    return builder.build()


def _function(chance: random.Random) -> Any:
    seconds, fails = chance.random() * 0.01, chance.random() < 0.2

    def body() -> None:
        if fails:
            raise ConnectionError("down")

    def blocks(context: Any) -> None:
        time.sleep(seconds)
        body()

    def short(context: Any) -> None:
        body()

    def defers(context: Any, handle: Any) -> None:
        over = time.monotonic() + seconds
        handle.defer_until(lambda: time.monotonic() > over, poll_interval_ms=1)
        body()

    async def awaits(context: Any) -> None:
        await asyncio.sleep(seconds)
        body()

    async def defers_too(context: Any, handle: Any) -> None:
        over = time.monotonic() + seconds
        await handle.defer_until(lambda: time.monotonic() > over, poll_interval_ms=1)
        body()

    return chance.choice([blocks, short, short, defers, awaits, defers_too])


@pytest.mark.parametrize("waits", [False, True], ids=["a journal at hand", "a journal that waits"])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_run_hangs_and_no_slot_is_lost(seed: int, waits: bool) -> None:
    chance = random.Random(seed)
    loop = asyncio.get_running_loop()
    crew, slots = Crew(200), Slots(3)
    workshop = Workshop(crew=crew, loop=loop, timers=Timers(loop), slots=slots, task_timeout=0.05)
    runs = []
    for number in range(RUNS):
        stop, journal = Stop(), Journal(chance, waits=waits)
        running = asyncio.create_task(
            execute(workflow(chance, f"w{number}"), {"n": number}, RecordedStatus(), journal, workshop, stop)
        )
        runs.append((running, journal))
        if chance.random() < 0.4:
            reason = chance.choice(list(StopReason))
            loop.call_later(chance.random() * 0.2, stop.request, reason)
        elif chance.random() < 0.2:
            loop.call_later(chance.random() * 0.2, running.cancel)
    ended = await asyncio.wait_for(asyncio.gather(*(running for running, _ in runs), return_exceptions=True), 60)

    for status, (_, journal) in zip(ended, runs, strict=True):
        if isinstance(status, asyncio.CancelledError):
            continue
        assert isinstance(status, RecordedStatus), status
        assert status.phase in (RunPhase.COMPLETED, RunPhase.FAILED, RunPhase.CANCELLED, RunPhase.PENDING)
        assert status == journal.last
    deadline = time.monotonic() + 10
    while slots.free != 3 and time.monotonic() < deadline:  # one that was given up is on its way back
        await asyncio.sleep(0.01)
    assert slots.free == 3
    crew.shutdown()
