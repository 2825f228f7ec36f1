"""Every form that a trigger function may have, from its poll to the runs it makes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import ObjectMeta, Trigger, TriggerSpec, WorkflowRun
from cloaca.resources.trigger import PackageReference, TickOutcome
from cloaca.store import open_store

TIMED = """
import functools

def timed(function):
    @functools.wraps(function)
    def around(*given, **named):
        return function(*given, **named)
    return around
"""
ONE = {"n": 1}
TWO = {"n": 2}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param("def form(): return True", [{}], id="plain bool"),
        pytest.param("def form(): return cloaca.TriggerResult.fire({'n': 1})", [ONE], id="one result"),
        pytest.param(
            "def form(): return [cloaca.TriggerResult.fire({'n': 1}), cloaca.TriggerResult.fire({'n': 2})]",
            [ONE, TWO],
            id="list",
        ),
        pytest.param(
            "def form():\n    for n in (1, 2):\n        yield cloaca.TriggerResult.fire({'n': n})",
            [ONE, TWO],
            id="generator",
        ),
        pytest.param("async def form(): return cloaca.TriggerResult.fire({'n': 1})", [ONE], id="async"),
        pytest.param(
            "async def form():\n    for n in (1, 2):\n        yield cloaca.TriggerResult.fire({'n': n})",
            [ONE, TWO],
            id="async generator",
        ),
        pytest.param(
            "@timed\nasync def form(config, state): return cloaca.TriggerResult.fire(config)",
            [{"n": 7}],
            id="async, behind a decorator",
        ),
        pytest.param(
            "@timed\nasync def form():\n    for n in (1, 2):\n        yield cloaca.TriggerResult.fire({'n': n})",
            [ONE, TWO],
            id="async generator, behind a decorator",
        ),
        pytest.param(
            "@timed\ndef form(settings): return cloaca.TriggerResult.fire(settings)",
            [{"n": 7}],
            id="config, behind a decorator",
        ),
        pytest.param(
            "class Form:\n    async def __call__(self, config):\n        yield cloaca.TriggerResult.fire(config)\n"
            "form = Form()",
            [{"n": 7}],
            id="object whose call is an async generator",
        ),
        pytest.param(
            "async def fires(number, config):\n    yield cloaca.TriggerResult.fire({'n': number})\n"
            "form = functools.partial(fires, 2)",
            [TWO],
            id="partial of an async generator",
        ),
        pytest.param("def form(config): return cloaca.TriggerResult.fire(config)", [{"n": 7}], id="config"),
        pytest.param(
            "async def form(state, config): return cloaca.TriggerResult.fire({**config, 'had': state.get('had', 0)})",
            [{"n": 7, "had": 0}],
            id="config and state, in any order",
        ),
    ],
)
async def test_the_first_poll_makes_the_runs_with_their_contexts(
    daemon: Daemon, function: str, expected: list[dict[str, Any]]
) -> None:
    await deploy(daemon, function, poll_interval="1h")
    runs = await daemon.runs(lambda runs: len(runs) == len(expected) and all_finished(runs))
    assert sorted((run.spec.context for run in runs), key=repr) == sorted(expected, key=repr)
    trigger = await daemon.trigger("demo-form", lambda it: bool(it.status.ticks))
    (tick,) = trigger.status.ticks
    assert tick.outcome is TickOutcome.FIRED
    assert sorted(tick.runs) == sorted(run.name for run in runs)


@pytest.mark.parametrize("word", ["def", "async def"])
async def test_state_is_what_the_last_poll_left(daemon: Daemon, word: str) -> None:
    function = (
        f"{word} form(state):\n"
        "    number = state.get('number', 0) + 1\n"
        "    if number > 3:\n"
        "        return cloaca.TriggerResult.skip('enough')\n"
        "    state.set('number', number)\n"
        "    return cloaca.TriggerResult.fire({'number': number})"
    )
    await deploy(daemon, function, poll_interval="100ms")
    trigger = await daemon.trigger("demo-form", lambda it: it.status.sequence == 3)
    assert trigger.status.state == {"number": 3}
    runs = await daemon.runs(lambda runs: len(runs) == 3)
    assert sorted(run.spec.context["number"] for run in runs) == [1, 2, 3]


@pytest.mark.parametrize("word", ["def", "async def"])
async def test_a_key_fires_once_in_a_generator_too(daemon: Daemon, tmp_path: Path, word: str) -> None:
    calls = tmp_path / "calls"
    function = (
        f"{word} form():\n"
        f"    open({str(calls)!r}, 'a').write('x')\n"
        "    for key in ('a', 'a/b ü', 'a'):\n"
        "        yield cloaca.TriggerResult.fire({'key': key}, key=key)"
    )
    await deploy(daemon, function, poll_interval="100ms")
    trigger = await daemon.trigger("demo-form", lambda it: bool(it.status.ticks))
    await called(calls, 3)
    runs = await daemon.runs(all_finished)
    assert sorted(run.spec.key or "" for run in runs) == ["a", "a/b ü"]
    assert trigger.status.consecutive_errors == 0


async def test_a_key_fires_again_once_its_run_was_deleted(daemon: Daemon, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    function = (
        f"def form():\n    open({str(calls)!r}, 'a').write('x')\n    return cloaca.TriggerResult.fire({{}}, key='a')"
    )
    await deploy(daemon, function, poll_interval="100ms")
    (first,) = await daemon.runs(lambda runs: len(runs) == 1 and all_finished(runs))
    await called(calls, 3)
    store = await open_store(daemon.store)
    await store.delete(first.ref, first.metadata.uid)
    await store.close()
    (second,) = await daemon.runs(lambda runs: len(runs) == 1 and runs[0].metadata.uid != first.metadata.uid)
    assert second.name == first.name


@pytest.mark.parametrize("word", ["def", "async def"])
async def test_what_stands_after_a_yield_runs_when_the_fire_is_in_the_store(
    daemon: Daemon, tmp_path: Path, word: str
) -> None:
    seen = tmp_path / "seen"
    function = (
        f"{word} form():\n"
        "    for key in ('a', 'b'):\n"
        "        yield cloaca.TriggerResult.fire({}, key=key)\n"
        "        import sqlite3\n"
        f"        database = sqlite3.connect('file:{daemon.home.database}?mode=ro', uri=True)\n"
        "        count = database.execute(\"SELECT count(*) FROM objects WHERE kind = 'WorkflowRun'\").fetchone()[0]\n"
        f"        open({str(seen)!r}, 'a').write(f'{{key}}: {{count}} ')"
    )
    await deploy(daemon, function, poll_interval="1h")
    await daemon.trigger("demo-form", lambda it: bool(it.status.ticks))
    assert seen.read_text() == "a: 1 b: 2 "


@pytest.mark.parametrize("word", ["def", "async def"])
async def test_what_a_generator_leaves_in_its_state_after_the_last_yield_is_kept(daemon: Daemon, word: str) -> None:
    function = (
        f"{word} form(state):\n"
        "    state.set('fired', state.get('fired', 0) + 1)\n"
        "    yield cloaca.TriggerResult.fire({'fired': state['fired']}, key=str(state['fired']))\n"
        "    state.set('handed_over', state['fired'])"
    )
    await deploy(daemon, function, poll_interval="1h")
    trigger = await daemon.trigger("demo-form", lambda it: bool(it.status.ticks))
    assert trigger.status.state == {"fired": 1, "handed_over": 1}


async def test_a_generator_has_its_time_anew_after_each_yield(daemon: Daemon) -> None:
    function = (
        "def form():\n"
        "    for n in range(5):\n"
        "        time.sleep(0.5)\n"
        "        yield cloaca.TriggerResult.fire({'n': n}, key=str(n))"
    )
    await deploy(daemon, function, poll_interval="1h", timeout="2s")
    trigger = await daemon.trigger("demo-form", lambda it: bool(it.status.ticks))
    assert trigger.status.ticks[0].outcome is TickOutcome.FIRED, trigger.status.last_error
    assert len(trigger.status.ticks[0].runs) == 5


async def test_what_finds_the_same_keys_at_each_poll_is_quiet(daemon: Daemon, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    function = (
        "def form():\n"
        f"    open({str(calls)!r}, 'a').write('x')\n"
        "    return [cloaca.TriggerResult.fire({}, key=key) for key in 'abc']"
    )
    await deploy(daemon, function, poll_interval="100ms")
    await daemon.runs(lambda runs: len(runs) == 3 and all_finished(runs))
    told = await daemon.trigger("demo-form", lambda it: bool(it.status.ticks) and not it.status.active)
    await called(calls, 10)
    again = await daemon.trigger("demo-form", lambda _: True)
    assert again.metadata.resource_version == told.metadata.resource_version
    assert again.status.sequence == 1


async def called(calls: Path, times: int) -> None:
    """Return when the function was called so many times more: each call adds a byte."""
    before = calls.stat().st_size
    while calls.stat().st_size < before + times:
        await asyncio.sleep(0.05)


async def deploy(daemon: Daemon, function: str, *, poll_interval: str, timeout: str = "60s") -> None:
    decorator = f'cloaca.trigger(name="form", poll_interval="{poll_interval}", allow_concurrent=True)'
    decorated = f"{function}\n{decorator}(form)" if "form = " in function else f"@{decorator}\n{function}"
    daemon.start()
    await daemon.eventually("the store", lambda store: asyncio.sleep(0, True))
    await daemon.submit(
        Trigger(
            metadata=ObjectMeta(name="demo-form"),
            spec=TriggerSpec(package_ref=PackageReference(name="demo"), name="form", config={"n": 7}, timeout=timeout),
        )
    )
    triggers = [declared("form", poll_interval=poll_interval, allow_concurrent=True)]
    daemon.deploy(archive(f"{WORKFLOW}\n{TIMED}\n{decorated}\n", triggers=triggers))


def all_finished(runs: tuple[WorkflowRun, ...]) -> bool:
    return bool(runs) and all(run.status.phase.finished for run in runs)
