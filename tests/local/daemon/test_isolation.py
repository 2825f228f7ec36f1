"""A trigger that takes its process down, or holds it up, takes no poll and no fire from its neighbours."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import ObjectMeta, Trigger, TriggerSpec
from cloaca.resources.trigger import PackageReference, TickOutcome

CODE = """
import asyncio, pathlib, signal

FOLDER = pathlib.Path(os.environ["FOLDER"])

def count(state, name):
    number = state.get("number", 0) + 1
    with (FOLDER / name).open("a") as calls:
        calls.write(f"{number}\\n")
    state.set("number", number)
    return number

@cloaca.trigger(name="threaded", poll_interval="100ms", allow_concurrent=True)
def threaded(state):
    number = count(state, "threaded")
    time.sleep(0.05)  # often under way when the process goes
    return cloaca.TriggerResult.fire({"number": number}, key=str(number))

@cloaca.trigger(name="asynchronous", poll_interval="100ms", allow_concurrent=True)
async def asynchronous(state):
    number = count(state, "asynchronous")
    await asyncio.sleep(0.05)
    yield cloaca.TriggerResult.fire({"number": number}, key=str(number))

@cloaca.trigger(name="bad", poll_interval="100ms")
def bad(state):
    count(state, "bad")
    HOW
"""
NEIGHBOURS = ("threaded", "asynchronous")


@pytest.mark.parametrize(
    ("how", "timeout", "words"),
    [
        ("os._exit(7)", "60s", "took its process down: exit code 7"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "60s", "took its process down: signal 11 (SIGSEGV)"),
        ("time.sleep(600)", "300ms", "took longer than its 0.3 s"),
        ("while True: pass", "300ms", "took longer than its 0.3 s"),
    ],
    ids=["exits", "crashes", "hangs", "spins"],
)
async def test_neighbours_go_on_with_every_poll_and_fire(
    daemon: Daemon, tmp_path: Path, how: str, timeout: str, words: str
) -> None:
    daemon.environment["FOLDER"] = str(tmp_path)
    daemon.start()
    await daemon.eventually("the store", lambda store: asyncio.sleep(0, True))
    spec = TriggerSpec(package_ref=PackageReference(name="demo"), name="bad", timeout=timeout)
    await daemon.submit(Trigger(metadata=ObjectMeta(name="demo-bad"), spec=spec))
    daemon.deploy(
        archive(
            WORKFLOW + CODE.replace("HOW", how),
            triggers=[
                *(declared(name, poll_interval="100ms", allow_concurrent=True) for name in NEIGHBOURS),
                declared("bad", poll_interval="100ms"),
            ],
        )
    )
    bad = await daemon.trigger("demo-bad", lambda it: it.status.consecutive_errors >= 2)
    assert words in (bad.status.last_error or "")

    before = {name: (await daemon.trigger(f"demo-{name}", lambda it: True)).status.sequence for name in NEIGHBOURS}
    for name in NEIGHBOURS:
        reached = before[name] + 5
        seen = await daemon.trigger(f"demo-{name}", lambda it, reached=reached: it.status.sequence >= reached)
        assert seen.status.state["number"] == seen.status.sequence, "each poll fired, and each fire was recorded"
        assert seen.status.consecutive_errors == 0
        assert {tick.outcome for tick in seen.status.ticks} == {TickOutcome.FIRED}
        numbers = [int(line) for line in (tmp_path / name).read_text().split()]
        assert sorted(set(numbers)) == list(range(1, max(numbers) + 1)), "no poll was left out"
