"""What Prometheus reads of a daemon."""

from __future__ import annotations

import asyncio
from typing import Any

from builders import WORKFLOW, archive, declared
from daemon_process import Daemon
from figures import scraped
from servers import free_port

POLLS = "cloacina_polls_total default demo"
CODE = """
@cloaca.trigger(name="once", poll_interval="100ms", allow_concurrent=True)
def once():
    return cloaca.TriggerResult.fire(key="k")

@cloaca.trigger(name="bad", poll_interval="100ms")
def bad():
    raise ValueError("no")

@cloaca.trigger(name="idle", poll_interval="100ms")
def idle():
    return cloaca.TriggerResult.skip()
"""


async def test_polls_runs_and_the_queue_are_counted(daemon: Daemon) -> None:
    port = free_port()
    daemon.home.root.mkdir()
    daemon.home.config.write_text(f"metrics_port = {port}\n")
    triggers = [declared(name, poll_interval="100ms") for name in ("bad", "idle")]
    triggers.append(declared("once", poll_interval="100ms", allow_concurrent=True))
    daemon.deploy(archive(WORKFLOW + CODE, triggers=triggers))
    daemon.start()
    await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    await daemon.trigger("demo-bad", lambda it: it.status.consecutive_errors >= 2)

    async def look(_: Any) -> dict[str, float] | None:
        seen = await asyncio.to_thread(scraped, port)
        wanted = [f"{POLLS} {result}" for result in ("fired", "skipped", "deduplicated", "error")]
        return seen if all(seen[name] for name in wanted) and "cloacina_run_seconds_count Completed" in seen else None

    seen = await daemon.eventually("all figures", look)
    assert seen["cloacina_fires_total default demo"] == 1
    assert seen[f"{POLLS} fired"] == 1
    assert seen["cloacina_fires_deduplicated_total default demo"] == seen[f"{POLLS} deduplicated"]
    assert seen["cloacina_trigger_consecutive_errors default demo-bad"] >= 2
    assert seen["cloacina_trigger_consecutive_errors default demo-once"] == 0
    assert seen["cloacina_run_seconds_count Completed"] == 1
    assert seen["cloacina_runs Running"] == seen["cloacina_runs Pending"] == 0
    polls = sum(value for name, value in seen.items() if name.startswith("cloacina_polls_total "))
    assert seen["cloacina_poll_seconds_count default demo"] == polls
    assert seen["cloacina_poll_lateness_seconds_count default demo"] >= polls
    assert "cloacina_operator_queue_length" in seen
    assert daemon.stop() == 0
