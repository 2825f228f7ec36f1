"""The scenarios: packages whose functions fire in every way there is, and what people do to them meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from builders import declared
from faults.world import PACKAGE, Scenario

from cloaca.resources import CloacinaPackage, RunPhase, WorkflowRun
from cloaca.resources.package import PackageSource

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


def _trigger(*, concurrent: bool) -> str:
    return _TRIGGER.format(concurrent=concurrent)


def _declared(**changes: object) -> tuple[dict[str, object], ...]:
    entry = {"poll_interval": "2s", "allow_concurrent": True, **changes}
    return (declared("watch", **entry),)


def _ended(world: World, *fires: str) -> bool:
    """Whether each has a run that ended."""
    ended = {made.run.spec.context["fire"] for made in world.record.made.values() if made.phase.finished}
    return ended >= set(fires)


def _all_completed(world: World) -> list[str]:
    return [
        f"run {made.run.name} is {made.phase.value}, not Completed"
        for made in world.record.made.values()
        if made.phase not in (RunPhase.COMPLETED, RunPhase.DEDUPLICATED)
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


def _keyed_done(world: World) -> bool:
    """The same keys are found at each call until the end, and nothing is written about it."""
    return _ended(world, "a", "b", "c") and world.calls > 3


def _six(world: World) -> bool:
    return _ended(world, *(f"n-{number}" for number in range(6)))


_PLAIN = _trigger(concurrent=True)
_ONE_AT_A_TIME = _trigger(concurrent=False)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="keyed",
            code=_TASKS + _PLAIN + _KEYED,
            triggers=_declared(),
            done=_keyed_done,
            check=_all_completed,
        ),
        Scenario(
            name="unkeyed",
            code=_TASKS + _PLAIN + _UNKEYED,
            triggers=_declared(),
            done=lambda world: world.calls > 5,
            check=_all_completed,
        ),
        Scenario(
            name="state",
            code=_TASKS + _PLAIN + _STATE,
            triggers=_declared(),
            done=_six,
            check=_all_completed,
        ),
        Scenario(
            name="generator",
            code=_TASKS + _PLAIN + _GENERATOR,
            triggers=_declared(),
            done=lambda world: not world.inbox and _ended(world, "a", "b", "c"),
            check=_all_completed,
        ),
        Scenario(
            name="generator-state",
            code=_TASKS + _PLAIN + _GENERATOR_STATE,
            triggers=_declared(),
            done=lambda world: _ended(world, *(f"n-{number}" for number in range(4))),
            check=_all_completed,
        ),
        Scenario(
            name="forbid",
            code=_LONG + _ONE_AT_A_TIME + _STATE,
            triggers=_declared(allow_concurrent=False),
            done=_six,
            check=_all_completed,
        ),
        Scenario(
            name="cancel",
            code=_LONG + _ONE_AT_A_TIME + _UNKEYED,
            triggers=_declared(allow_concurrent=False),
            people=_cancel,
            done=lambda world: world.calls > 5,
            check=_cancelled,
        ),
        Scenario(
            name="update",
            code=_LONG + _PLAIN + _STATE,
            triggers=_declared(),
            people=_update,
            done=_six,
            check=_all_completed,
        ),
        Scenario(
            name="delete",
            code=_LONG + _PLAIN + _KEYED,
            triggers=_declared(),
            people=_delete,
            done=lambda world: not world.inbox,
            gone=True,
        ),
    )
}
