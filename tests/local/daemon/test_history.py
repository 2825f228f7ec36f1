"""Finished runs go as the limits say, and their keys never fire again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.polling.ledger import FiredKeys
from cloaca.polling.messages import Fire
from cloaca.polling.tick import intend, run_of
from cloaca.resources import ObjectMeta, RunPhase, RunSpec, Trigger, TriggerSpec, WorkflowRun
from cloaca.resources.package import RunDefaults
from cloaca.resources.run import TriggerReference
from cloaca.resources.trigger import PackageReference, TickOutcome
from cloaca.store import Store


def recording(folder: Path, trigger: str) -> str:
    """A package whose task leaves a file for each execution, and a trigger with that body."""
    mark = f'open(r"{folder}/" + str(context["n"]) + "-" + str(time.time_ns()), "w").close()'
    code = WORKFLOW.replace('context.set("done", True)', mark)
    return f"{code}\n@cloaca.trigger(name='inbox', poll_interval='100ms')\ndef inbox():\n    {trigger}\n"


async def test_a_key_fires_once_though_its_run_is_gone(daemon: Daemon, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    calls = tmp_path / "calls"
    body = f"open({str(calls)!r}, 'a').write('x'); "
    body += "return [cloaca.TriggerResult.fire({'n': n}, key=f'datei {n} ü') for n in range(12)]"
    daemon.start()
    await daemon.eventually("the store", _there)
    await daemon.submit(
        Trigger(
            metadata=ObjectMeta(name="demo-inbox"),
            spec=TriggerSpec(
                package_ref=PackageReference(name="demo"),
                name="inbox",
                allow_concurrent=True,
                successful_runs_history_limit=2,
            ),
        )
    )
    daemon.deploy(archive(recording(marks, body), triggers=[declared("inbox", poll_interval="100ms")]))

    async def collected(store: Store) -> bool:
        return len(list(marks.iterdir())) >= 12 and len(await store.list(WorkflowRun)) == 2

    await daemon.eventually("all but two runs to be collected", collected)
    daemon.kill()
    daemon.start()  # whatever the poller knew is forgotten
    polled = calls.stat().st_size
    while calls.stat().st_size < polled + 3:
        await asyncio.sleep(0.05)
    again = await daemon.trigger("demo-inbox", lambda it: bool(it.status.ticks))
    assert again.status.ticks[0].outcome is TickOutcome.DEDUPLICATED
    assert sorted(path.name.split("-")[0] for path in marks.iterdir()) == sorted(str(n) for n in range(12))

    async def submit_stale(store: Store) -> WorkflowRun:
        """What a poller does that has not heard of the ledger."""
        trigger = await store.get(Trigger, "demo-inbox")
        keys = FiredKeys(store, TriggerReference(name="demo-inbox", uid=trigger.metadata.uid), "default")  # type: ignore[union-attr]  # it is there
        await keys.refresh()
        gone = next(n for n in range(12) if f"datei {n} ü" in keys)
        pending = intend(trigger, [Fire(context={"n": gone}, key=f"datei {gone} ü")], None, ["stale"])  # type: ignore[arg-type]  # it is there
        return await store.create(run_of(trigger, pending, pending.fires[0], RunDefaults()))  # type: ignore[arg-type]  # it is there

    stale = await daemon.eventually("a stale submission", submit_stale)
    runs = await daemon.runs(lambda runs: any(it.name == stale.name and it.status.phase.finished for it in runs))
    ended = next(run for run in runs if run.name == stale.name)
    assert (ended.status.phase, ended.status.attempt) == (RunPhase.DEDUPLICATED, 0)
    assert "stands in the ledger" in (ended.status.message or "")
    assert len(list(marks.iterdir())) == 12


async def test_a_run_by_hand_goes_when_its_time_is_over(daemon: Daemon, tmp_path: Path) -> None:
    daemon.deploy(archive(WORKFLOW))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    spec = RunSpec(workflow="demo", package_ref=PackageReference(name="demo"), ttl_seconds_after_finished=1)
    run = await daemon.submit(WorkflowRun(metadata=ObjectMeta(name="by-hand"), spec=spec))
    await daemon.runs(lambda runs: any(it.status.phase is RunPhase.COMPLETED for it in runs))

    async def gone(store: Store) -> bool:
        return await store.get(WorkflowRun, run.name) is None

    await daemon.eventually("the run to be collected", gone)


async def _there(store: Store) -> bool:
    return await store.get(Trigger, "none") is None
