"""The scenarios: packages whose functions fire in every way there is, and what people do to them meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from builders import declared
from faults.world import PACKAGE, Scenario

from cloaca.resources import CloacinaPackage, ConcurrencyPolicy, ObjectMeta, RunPhase, RunSpec, Trigger, WorkflowRun
from cloaca.resources.package import PackageSource
from cloaca.resources.trigger import PackageReference

if TYPE_CHECKING:
    from faults.world import World

_TASKS = """
import cloaca

with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="first", retry_attempts=0)
    async def first(context):
        await W.task("first", context)

    @cloaca.task(id="second", dependencies=["first"], retry_attempts=0)
    async def second(context):
        await W.task("second", context)
"""
_LONG = _TASKS.replace('"first", context)', '"first", context, 5.0)')
_TRIGGER = '\n@cloaca.trigger(name="watch", poll_interval="2s", allow_concurrent={concurrent})\n'

_KEYED = """
async def watch():
    W.call()
    if not W.inbox:
        return cloaca.TriggerResult.skip()
    return [W.fire(name, VERSION, key=name) for name in W.inbox]
"""
_UNKEYED = """
async def watch():
    number = W.call()
    if number > 4:
        return cloaca.TriggerResult.skip()
    return W.fire(f"call-{number}", VERSION)
"""
_STATE = """
async def watch(state):
    W.call()
    number = state.get("n", 0)
    if number >= 6:
        return cloaca.TriggerResult.skip()
    state.set("n", number + 2)
    return [W.fire(f"n-{number}", VERSION), W.fire(f"n-{number + 1}", VERSION)]
"""
_SLOW_STATE = _STATE.replace("    W.call()\n", "    W.call()\n    await asyncio.sleep(1.7)\n")
_NEVER = """
async def watch():
    raise RuntimeError("a trigger with a schedule is never called")
"""
_GENERATOR = """
async def watch():
    W.call()
    for name in tuple(W.inbox):
        yield W.fire(name, VERSION, key=name)
        W.after(name)
        W.inbox.remove(name)
"""
_GENERATOR_STATE = """
async def watch(state):
    W.call()
    while state.get("n", 0) < 4:
        number = state.get("n", 0)
        state.set("n", number + 1)
        yield W.fire(f"n-{number}", VERSION)
        W.after(f"n-{number}")
"""


_EVERY_TEN_SECONDS = {"schedule": "*/10 * * * * *", "successful_runs_history_limit": 2}


def _ended(world: World, *fires: str) -> bool:
    """Whether each has a run that ended."""
    ended = {made.fire for made in world.record.made.values() if made.phase.finished}
    return ended >= set(fires)


def _all_completed(world: World) -> list[str]:
    return [
        f"run {made.run.name} is {made.phase.value}, not Completed"
        for made in world.record.made.values()
        if made.phase not in (RunPhase.COMPLETED, RunPhase.DEDUPLICATED) and made.run.spec.trigger_ref is not None
    ]


async def _second_run(world: World) -> WorkflowRun:
    """The first run, once its first task has started."""
    while True:
        for made in world.record.made.values():
            if made.begun:
                return made.run
        await asyncio.sleep(0.1)


async def _cancel(world: World) -> None:
    run = await _second_run(world)
    await asyncio.sleep(1.0)
    seen = await world.person.get(WorkflowRun, run.name)
    if seen is not None and not seen.status.phase.finished:
        await world.person.update(seen.with_spec(cancel=True).with_metadata(resource_version=""))


async def _update(world: World) -> None:
    await _second_run(world)
    url = world.pack("2.0.0")
    package = await world.person.get(CloacinaPackage, "demo")
    assert package is not None
    changed = package.with_spec(source=PackageSource(url=url)).with_metadata(resource_version="")
    await world.person.update(changed)


async def _delete(world: World) -> None:
    await _second_run(world)
    await world.person.delete(PACKAGE)
    world.inbox.clear()


async def _take_names(world: World) -> None:
    """A person has runs of the names that the first two fires would have."""
    for number in (1, 2):
        other, context = PackageReference(name="other"), {"fire": f"a person's, {number}"}
        spec = RunSpec(workflow="mine", package_ref=other, context=context, cancel=True)
        await world.person.create(WorkflowRun(metadata=ObjectMeta(name=f"demo-watch-{number}"), spec=spec))


async def _break_the_trigger(world: World) -> None:
    """While one of its runs is under way and another one waits, a person has it fire what is not there."""
    await _second_run(world)
    for workflow in ("nobody", None):
        trigger = await world.person.get(Trigger, "demo-watch")
        assert trigger is not None
        await world.person.update(trigger.with_spec(workflow=workflow).with_metadata(resource_version=""))
        await asyncio.sleep(12.0)


def _cancelled(world: World) -> list[str]:
    first = next(iter(world.record.made.values()), None)
    if first is not None and first.phase not in (RunPhase.CANCELLED, RunPhase.COMPLETED):
        return [f"the cancelled run is {first.phase.value}"]
    return []


def _replaced(world: World) -> list[str]:
    runs = list(world.record.made.values())
    wrong = [made.run.name for made in runs if made.phase not in (RunPhase.CANCELLED, RunPhase.COMPLETED)]
    if runs and runs[-1].phase is not RunPhase.COMPLETED:
        wrong.append(f"{runs[-1].run.name}, the last one, is {runs[-1].phase.value}")
    return wrong


def _six(world: World) -> bool:
    return _ended(world, *(f"n-{number}" for number in range(6)))


def _called_often(world: World) -> bool:
    return world.calls > 5


def _suspended(world: World) -> bool:
    return world.over


def _whatever(world: World) -> list[str]:
    return []


def _steady(world: World) -> list[str]:
    """No burst and no stall of calls, whatever the clock says."""
    gaps = [after - before for before, after in itertools.pairwise(world.called_at)]
    calls = list(zip(world.called_at, world.called_by, strict=True))
    crowded = [
        count
        for start, by in calls  # while one poller takes over from another, both call
        if (count := sum(start <= it < start + 10 and other is by for it, other in calls)) > 8
    ]
    broken = [f"no call for {gap:.0f} s" for gap in gaps if gap > 30]
    return [*_all_completed(world), *broken, *(f"{count} calls within 10 s" for count in crowded[:1])]


async def _let_it_run(world: World) -> None:
    await _scheduled(world, 3)
    await _suspend(world)


async def _turn_the_clock(world: World) -> None:
    for hours in (1, -1, 0, -1, 1):
        await asyncio.sleep(3.0)
        world.clock.turned = timedelta(hours=hours)


async def _turn_it_under_a_schedule(world: World) -> None:
    for number, hours in enumerate((1, 0, -1, 0)):
        await _scheduled(world, number + 1)
        world.clock.turned = timedelta(hours=hours)
    await _scheduled(world, 5)
    await _suspend(world)


async def _scheduled(world: World, count: int) -> None:
    """Return when so many runs have completed, which must not take long."""
    before = world.loop.time()
    while sum(made.phase is RunPhase.COMPLETED for made in world.record.made.values()) < count:
        assert world.loop.time() < before + 400.0, f"the clock makes no run {count}"  # a missed change waits 300 s
        await asyncio.sleep(0.5)


async def _suspend(world: World) -> None:
    trigger = await world.person.get(Trigger, "demo-watch")
    assert trigger is not None
    await world.person.update(trigger.with_spec(suspend=True).with_metadata(resource_version=""))
    world.over = True


def _scenario(
    name: str,
    form: str,
    *,
    done: Callable[[World], bool],
    tasks: str = _TASKS,
    concurrent: bool = True,
    check: Callable[[World], list[str]] = _all_completed,
    **more: Any,
) -> Scenario:
    """One trigger of that form, polled every two seconds; ``more``: see Scenario."""
    entry = declared("watch", poll_interval="2s", allow_concurrent=concurrent)
    code = tasks + _TRIGGER.format(concurrent=concurrent) + form
    return Scenario(name=name, code=code, triggers=(entry,), done=done, check=check, **more)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _scenario("keyed", _KEYED, done=lambda world: _ended(world, "a", "b", "c") and world.calls > 3),
        _scenario("unkeyed", _UNKEYED, done=_called_often),
        _scenario("names-taken", _UNKEYED, people=_take_names, done=_called_often),
        _scenario("state", _STATE, done=_six),
        _scenario("generator", _GENERATOR, done=lambda world: not world.inbox and _ended(world, "a", "b", "c")),
        _scenario("generator-state", _GENERATOR_STATE, done=lambda world: _ended(world, "n-0", "n-1", "n-2", "n-3")),
        _scenario("forbid", _STATE, tasks=_LONG, concurrent=False, done=_six),
        _scenario(
            "forbid-keyed",
            _KEYED,
            tasks=_LONG,
            concurrent=False,
            done=lambda world: _ended(world, "a", "b", "c") and world.calls > 3,
        ),
        _scenario(
            "forbid-unfit",
            _KEYED,
            tasks=_LONG,
            concurrent=False,
            people=_break_the_trigger,
            done=lambda world: _ended(world, "a", "b", "c"),
        ),
        _scenario(
            "replace",
            _UNKEYED,
            tasks=_LONG,
            trigger={"concurrency_policy": ConcurrencyPolicy.REPLACE},
            done=_called_often,
            check=_replaced,
        ),
        _scenario(
            "cancel", _UNKEYED, tasks=_LONG, concurrent=False, people=_cancel, done=_called_often, check=_cancelled
        ),
        _scenario("update", _STATE, tasks=_LONG, people=_update, done=_six),
        _scenario("update-slow", _SLOW_STATE, tasks="import asyncio\n" + _LONG, people=_update, done=_six),
        _scenario(
            "delete",
            _KEYED,
            tasks=_LONG,
            people=_delete,
            done=lambda world: not world.inbox,
            check=_whatever,
            gone=True,
        ),
        _scenario(
            "history",
            _KEYED,
            trigger={"successful_runs_history_limit": 1},
            done=lambda world: _ended(world, "a", "b", "c") and world.calls > 5 and world.runs_kept == 1,
        ),
        _scenario("schedule", _NEVER, trigger=_EVERY_TEN_SECONDS, people=_let_it_run, done=_suspended),
        _scenario("clock", _STATE, people=_turn_the_clock, done=_six, check=_steady),
        _scenario(
            "clock-schedule", _NEVER, trigger=_EVERY_TEN_SECONDS, people=_turn_it_under_a_schedule, done=_suspended
        ),
    )
}
