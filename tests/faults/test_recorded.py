"""Polls that say nothing new are recorded within a minute all the same: seen in the store, in simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from builders import declared
from faults.scenarios import _TASKS, _TRIGGER
from faults.world import Case, Scenario, play

from cloaca.resources import Trigger, TriggerStatus
from cloaca.resources.trigger import Tick, TickOutcome

if TYPE_CHECKING:
    from faults.world import World

A_MINUTE = timedelta(seconds=60)
A_LOOK = timedelta(seconds=4)  # a poll's interval, the look of whoever watches, and the calls of the store
NAME = "demo-watch"
ALWAYS_THE_SAME = """
async def watch():
    W.call()
    return W.fire("a", VERSION, key="a")
"""
ONE_AFTER_THE_OTHER = """
async def watch():
    number = W.call()
    return W.fire(str(number), VERSION, key=str(number)) if number < 3 else cloaca.TriggerResult.skip()
"""


def played(people: Callable[[World], Awaitable[None]], form: str, *, concurrent: bool, seconds: float = 0.3) -> None:
    """Plays a trigger, polled every two seconds, whose runs take so many ``seconds``, and what ``people`` do."""
    tasks = _TASKS.replace('"first", context)', f'"first", context, {seconds})')
    scenario = Scenario(
        name="recorded",
        code=tasks + _TRIGGER.format(concurrent=concurrent) + form,
        triggers=(declared("watch", poll_interval="2s", allow_concurrent=concurrent),),
        people=people,
        done=lambda world: True,
    )
    outcome = play(scenario, Case(scenario=scenario.name))
    assert outcome.broken == []


async def tick_in_the_store(world: World, outcome: TickOutcome) -> tuple[Tick, datetime]:
    """The newest tick with that outcome, and when it was first seen."""
    while True:
        for tick in (await status(world)).ticks:
            if tick.outcome is outcome:
                return tick, world.clock.now()
        await asyncio.sleep(1.0)


async def status(world: World) -> TriggerStatus:
    trigger = await world.person.get(Trigger, NAME)
    return TriggerStatus() if trigger is None else trigger.status


def test_a_poll_that_an_active_run_blocks_is_recorded_within_a_minute() -> None:
    async def look(world: World) -> None:
        blocked, seen = await tick_in_the_store(world, TickOutcome.BLOCKED)
        (active,) = (await status(world)).active
        assert blocked.reason == f"run {active} is active"
        assert seen - blocked.time <= A_MINUTE + A_LOOK

    played(look, ONE_AFTER_THE_OTHER, concurrent=False, seconds=200.0)


def test_a_blocked_poll_is_recorded_though_the_interval_is_changed_meanwhile() -> None:
    async def look(world: World) -> None:
        while not (await status(world)).active:
            await asyncio.sleep(1.0)
        await asyncio.sleep(10.0)
        trigger = await world.person.get(Trigger, NAME)
        assert trigger is not None
        changed = await world.person.update(trigger.with_spec(poll_interval="3s").with_metadata(resource_version=""))
        at = world.clock.now()
        _, seen = await tick_in_the_store(world, TickOutcome.BLOCKED)
        assert changed.spec.poll_interval == "3s"
        assert seen - at <= A_MINUTE + A_LOOK

    played(look, ONE_AFTER_THE_OTHER, concurrent=False, seconds=200.0)


def test_a_poll_that_repeats_the_key_that_just_fired_is_recorded_within_a_minute_and_not_at_once() -> None:
    async def look(world: World) -> None:
        fired, _ = await tick_in_the_store(world, TickOutcome.FIRED)
        repeated, seen = await tick_in_the_store(world, TickOutcome.DEDUPLICATED)
        ticks = (await status(world)).ticks
        assert repeated.reason == f"key fired before: run {fired.runs[0]}"
        assert timedelta(seconds=30) < seen - fired.time <= A_MINUTE + A_LOOK
        assert len([tick for tick in ticks if tick.outcome is TickOutcome.DEDUPLICATED]) >= 10

    played(look, ALWAYS_THE_SAME, concurrent=True)


def test_polls_that_find_nothing_are_recorded_together_once_a_minute() -> None:
    async def look(world: World) -> None:
        _, first = await tick_in_the_store(world, TickOutcome.SKIPPED)
        await asyncio.sleep(180.0)
        writes = [time for time, ref in world.record.writes if ref.name == NAME]
        late = [time for time in writes if time > writes[-1] - 150.0]
        assert len(late) <= 3
        newest = (await status(world)).ticks[0]
        assert newest.outcome is TickOutcome.SKIPPED
        assert world.clock.now() - newest.time <= A_MINUTE + A_LOOK
        assert first < newest.time

    played(look, ONE_AFTER_THE_OTHER, concurrent=True)
