"""Trigger functions that misbehave: each is an error of its own polls, and takes nothing from another trigger."""

from __future__ import annotations

import asyncio

import pytest
from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import ObjectMeta, Trigger, TriggerSpec
from cloaca.resources.conditions import find
from cloaca.resources.trigger import PackageReference, TickOutcome

GOOD = """
@cloaca.trigger(name="good", poll_interval="100ms")
def good():
    return cloaca.TriggerResult.skip("nothing to do")
"""

BAD = """
@cloaca.trigger(name="bad", poll_interval="100ms")
def bad():
    {body}
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param("return None", "the function returned None", id="returns None"),
        pytest.param("return 'fire'", "the function returned str 'fire'", id="returns text"),
        pytest.param("raise ValueError('no')", "ValueError: no", id="raises"),
        pytest.param("time.sleep(600)", "took longer than its 0.5 s", id="hangs"),
        pytest.param("os._exit(4)", "took its process down: exit code 4", id="exits"),
        pytest.param("os.kill(os.getpid(), 11)", "signal 11 (SIGSEGV)", id="crashes"),
    ],
)
async def test_a_bad_trigger_has_its_error_and_the_good_one_goes_on(daemon: Daemon, body: str, words: str) -> None:
    daemon.start()
    await daemon.eventually("the store", lambda store: asyncio.sleep(0, True))
    await daemon.submit(
        Trigger(
            metadata=ObjectMeta(name="demo-bad"),
            spec=TriggerSpec(package_ref=PackageReference(name="demo"), name="bad", timeout="500ms"),
        )
    )
    triggers = [declared("good", poll_interval="100ms"), declared("bad", poll_interval="100ms")]
    daemon.deploy(archive(WORKFLOW + GOOD + BAD.format(body=body), triggers=triggers))
    await daemon.package(Ready=("True", "Ready"))
    bad = await daemon.trigger("demo-bad", lambda it: it.status.consecutive_errors >= 1)
    assert words in (bad.status.last_error or "")
    assert bad.status.ticks[0].outcome is TickOutcome.ERROR
    bad = await daemon.trigger(
        "demo-bad", lambda it: (degraded := find(it.status.conditions, "Degraded")) is not None
        and degraded.status.value == "True",
    )  # fmt: skip
    degraded = find(bad.status.conditions, "Degraded")
    assert degraded is not None
    assert words.splitlines()[-1] in degraded.message
    good = await daemon.trigger("demo-good", lambda it: bool(it.status.ticks))
    assert good.status.consecutive_errors == 0
    assert good.status.ticks[0].reason == "nothing to do"


async def test_a_suspended_trigger_is_not_polled_until_it_is_resumed(daemon: Daemon) -> None:
    code = WORKFLOW + (
        """
@cloaca.trigger(name="tick", poll_interval="100ms", allow_concurrent=True)
def tick():
    return cloaca.TriggerResult.fire()
"""
    )
    daemon.deploy(archive(code, triggers=[declared("tick", poll_interval="100ms", allow_concurrent=True)]))
    daemon.start()
    trigger = await daemon.trigger("demo-tick", lambda it: it.status.sequence >= 2)
    await daemon.update(trigger.with_spec(suspend=True))
    trigger = await daemon.trigger(
        "demo-tick", lambda it: (polling := find(it.status.conditions, "Polling")) is not None
        and polling.reason == "Suspended",
    )  # fmt: skip
    await daemon.runs(lambda runs: all(run.status.phase.finished for run in runs))
    settled = (await daemon.trigger("demo-tick", lambda it: True)).status.sequence
    await daemon.update(trigger.with_spec(suspend=False))
    await daemon.trigger("demo-tick", lambda it: it.status.sequence > settled)


async def test_a_trigger_of_a_missing_package_and_one_that_is_not_declared_say_so(daemon: Daemon) -> None:
    daemon.deploy(archive(WORKFLOW))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    for name, package, function in (("lost", "nowhere", "x"), ("undeclared", "demo", "x")):
        await daemon.submit(
            Trigger(
                metadata=ObjectMeta(name=name),
                spec=TriggerSpec(package_ref=PackageReference(name=package), name=function),
            )
        )
    await daemon.trigger("lost", lambda it: _ready(it) == "PackageNotFound")
    await daemon.trigger("undeclared", lambda it: _ready(it) == "TriggerNotDeclared")


async def test_two_triggers_for_one_function_do_not_both_poll(daemon: Daemon) -> None:
    daemon.deploy(archive(WORKFLOW + GOOD, triggers=[declared("good")]))
    daemon.start()
    await daemon.trigger("demo-good", lambda it: _ready(it) == "Ready")
    await daemon.submit(
        Trigger(
            metadata=ObjectMeta(name="twin"), spec=TriggerSpec(package_ref=PackageReference(name="demo"), name="good")
        )
    )
    await daemon.trigger("twin", lambda it: _ready(it) == "Duplicate")


def _ready(trigger: Trigger) -> str | None:
    ready = find(trigger.status.conditions, "Ready")
    return None if ready is None else ready.reason
