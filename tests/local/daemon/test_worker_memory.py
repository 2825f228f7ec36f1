"""A trigger that leaks: its worker is replaced between polls, and no poll or fire is lost, its own or a neighbour's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from builders import WORKFLOW, archive, declared
from daemon_process import Daemon, processes_with

from cloaca.resources.trigger import TickOutcome

POLLS = 12  # of 40 MiB each, under a limit of 120 MiB

CODE = f"""
import asyncio, os, pathlib

FOLDER = pathlib.Path(os.environ["LEAK_FOLDER"])
leaked = []

@cloaca.trigger(name="leak", poll_interval="100ms", allow_concurrent=True)
def leak(state):
    number = state.get("number", 0) + 1
    if number > {POLLS}:
        return cloaca.TriggerResult.skip("enough")
    leaked.append(b"x" * (40 << 20))
    with (FOLDER / "polls").open("a") as polls:
        polls.write(f"{{number}} {{os.getpid()}}\\n")
    state.set("number", number)
    return cloaca.TriggerResult.fire({{"number": number}})

@cloaca.trigger(name="slow", poll_interval="100ms", allow_concurrent=True)
async def slow(state):
    state.set("begun", state.get("begun", 0) + 1)
    with (FOLDER / "slow").open("a") as polls:
        polls.write(f"begin {{state.get('begun')}}\\n")
    await asyncio.sleep(0.3)
    with (FOLDER / "slow").open("a") as polls:
        polls.write(f"end {{state.get('begun')}}\\n")
    return cloaca.TriggerResult.skip("slept")
"""


async def test_a_worker_over_its_memory_is_replaced_between_polls(daemon: Daemon, tmp_path: Path) -> None:
    daemon.environment["LEAK_FOLDER"] = str(tmp_path)
    daemon.home.root.mkdir()
    daemon.home.config.write_text(f"worker_memory = {120 << 20}\n")
    names = ("leak", "slow")
    triggers = [declared(name, poll_interval="100ms", allow_concurrent=True) for name in names]
    daemon.deploy(archive(WORKFLOW + CODE, triggers=triggers))
    daemon.start()
    leak = await daemon.trigger("demo-leak", lambda it: it.status.state.get("number") == POLLS)
    lines = [line.split() for line in (tmp_path / "polls").read_text().splitlines()]
    assert [int(number) for number, _ in lines] == list(range(1, POLLS + 1))  # each once: none lost, none repeated
    per_process = Counter(pid for _, pid in lines)
    assert len(per_process) >= 2
    assert max(per_process.values()) <= 5  # it may have been over the limit when its last poll began
    assert "over the limit of 120 MiB, and is replaced" in daemon.log
    assert leak.status.sequence == POLLS
    slow = await daemon.trigger("demo-slow", lambda it: it.status.state.get("begun", 0) >= 5)
    for trigger in (leak, slow):
        assert trigger.status.consecutive_errors == 0
        assert all(tick.outcome is not TickOutcome.ERROR for tick in trigger.status.ticks)
    told = [line.split() for line in (tmp_path / "slow").read_text().splitlines()]
    ended = slow.status.state["begun"]
    assert [f"{word} {number}" for word, number in told[: 2 * ended]] == [
        f"{word} {number}" for number in range(1, ended + 1) for word in ("begin", "end")
    ]
    await daemon.eventually("the end of the replaced workers", lambda _: _gone(tmp_path, set(per_process)))


async def _gone(tmp_path: Path, workers: set[str]) -> bool:
    """All but the one that polls now."""
    alive = {line.split()[0] for line in processes_with(f"LEAK_FOLDER={tmp_path}")}
    return len(workers & alive) <= 1
