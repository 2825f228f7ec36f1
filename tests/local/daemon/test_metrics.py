"""What Prometheus reads of a daemon."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import datetime, timezone
from typing import Any

import pytest
from builders import WORKFLOW, archive, declared
from daemon_process import Daemon
from figures import scraped
from servers import free_port

from cloaca.resources import ObjectMeta, RunPhase, RunSpec, WorkflowRun
from cloaca.resources.run import RunStatus
from cloaca.store import open_store

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_after_a_restart_what_ended_meanwhile_is_counted_and_nothing_twice(
    number: signal.Signals, daemon: Daemon
) -> None:
    port = free_port()
    daemon.home.root.mkdir()
    daemon.home.config.write_text(f"metrics_port = {port}\n")
    daemon.start()

    async def ended(name: str) -> None:
        """A run that is there, and has ended, at once: nobody sees it before its end."""
        store = await open_store(daemon.store)
        status = RunStatus(phase=RunPhase.COMPLETED, finished_at=datetime.now(timezone.utc))
        await store.create(WorkflowRun(metadata=ObjectMeta(name=name), spec=RunSpec(workflow="demo"), status=status))
        await store.close()

    async def is_counted(count: int) -> None:
        async def look(_: Any) -> bool:
            with contextlib.suppress(OSError):  # it does not listen yet
                return (await asyncio.to_thread(scraped, port))["cloacina_run_seconds_count Completed"] == count
            return False

        await daemon.eventually(f"{count} runs", look)

    await is_counted(0)
    await ended("first")
    await is_counted(1)
    daemon.kill() if number is signal.SIGKILL else daemon.stop()
    await ended("meanwhile")
    daemon.start()
    await is_counted(1)
    await ended("after")
    await is_counted(2)
    assert daemon.stop() == 0
