"""The entry points of the runtime image, as real processes with an archive mounted as Kubernetes mounts it."""

import asyncio
import re
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import WORKFLOW, archive, declared
from figures import scraped
from pod_process import Pod
from servers import free_port

from cloaca.errors import ImportCrashed, LoadError
from cloaca.processes.exits import ENDED, INTERRUPTED, LOST
from cloaca.processes.report import read_report
from cloaca.resources import CloacinaPackage, ObjectMeta, RunPhase, RunSpec, Trigger, TriggerSpec, WorkflowRun
from cloaca.resources.package import PackageSource, PackageSpec
from cloaca.resources.trigger import ConcurrencyPolicy, EffectiveSettings, PackageReference, TriggerStatus
from cloaca.store import Store, open_store

PATIENCE = 30.0
TRIGGER = """
@cloaca.trigger(name="inbox", poll_interval="200ms")
def inbox():
    return cloaca.TriggerResult.fire(cloaca.Context({"n": 1}), key="once")
"""

WAITING = """
import asyncio, os, pathlib, time
import cloaca

long = pathlib.Path(os.environ["CLOACA_LAST_WORDS"]).with_name("long")

with cloaca.WorkflowBuilder("demo"):
    @cloaca.task(id="only")
"""
SYNC = f"""{WAITING}
    def only(context):
        time.sleep(60 if long.exists() else 0)
"""
ASYNC = f"""{WAITING}
    async def only(context):
        await asyncio.sleep(60 if long.exists() else 0)
"""


async def submitted(store: Store, **spec: Any) -> WorkflowRun:
    run = WorkflowRun(
        metadata=ObjectMeta(name="demo-1"),
        spec=RunSpec(workflow="demo", package_ref=PackageReference(name="demo"), **spec),
    )
    return await store.create(run)


def of_run(pod: Pod, run: WorkflowRun, attempt: int = 1) -> list[str]:
    who = ["--run", run.name, "--uid", run.metadata.uid, "--attempt", str(attempt)]
    return ["--store", pod.store, "--namespace", "default", *who]


def test_an_inspection_leaves_a_report(tmp_path: Path) -> None:
    pod = Pod(tmp_path, archive(WORKFLOW + TRIGGER, triggers=[declared("inbox")]))

    code, said = pod.finish("inspect")

    assert code == 0, said
    found = read_report(pod.words.read_text(), None)
    assert [(workflow.name, workflow.tasks) for workflow in found.workflows] == [("demo", ("only",))]
    assert [trigger.name for trigger in found.triggers] == ["inbox"]


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        pytest.param("import nothing_of_that_name", LoadError, "nothing_of_that_name", id="raises"),
        pytest.param("import os; os.abort()", ImportCrashed, "SIGABRT", id="crashes"),
    ],
)
def test_an_inspection_reports_what_went_wrong(tmp_path: Path, code: str, error: type[LoadError], words: str) -> None:
    pod = Pod(tmp_path, archive(code))

    assert pod.finish("inspect")[0] == 0

    with pytest.raises(error, match=words):
        read_report(pod.words.read_text(), None)


@pytest.mark.parametrize("module", ["inspect", "attempt", "poll"])
def test_another_archive_than_the_one_asked_for_is_not_unpacked(tmp_path: Path, module: str) -> None:
    pod = Pod(tmp_path, archive("raise SystemExit('imported!')"))
    more = {
        "inspect": [],
        "attempt": ["--store", "x", "--namespace", "d", "--run", "r", "--uid", "u", "--attempt", "1"],
        "poll": ["--store", "x", "--namespace", "d", "--package", "p"],
    }[module]

    code, said = pod.finish(module, *more, digest="sha256:" + "0" * 64)

    assert code == 1
    assert "but sha256:0000" in said
    assert "but sha256:0000" in pod.words.read_text()
    assert not (tmp_path / "tmp").exists()


async def test_a_pod_executes_its_run(tmp_path: Path) -> None:
    pod = Pod(tmp_path, archive(WORKFLOW))
    store = await open_store(pod.store)
    run = await submitted(store)

    code, said = pod.finish("attempt", *of_run(pod, run))

    assert code == 0, said
    ended = await store.get(WorkflowRun, "demo-1")
    assert ended is not None
    assert (ended.status.phase, ended.status.attempt, ended.status.pod_name) == (RunPhase.COMPLETED, 1, "demo-1-x7k2p")
    again, _ = pod.finish("attempt", *of_run(pod, run, attempt=2))
    assert again == LOST, "a run that has ended is nobody's"
    await store.close()


@pytest.mark.parametrize("ends", ["by itself", "by SIGTERM", "cancelled", "at its deadline"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_run_ends_as_it_is_to_whether_its_tasks_are_async_or_not(
    tmp_path: Path, is_async: bool, ends: str
) -> None:
    """Its process becomes a loop of asyncio only for an async task: all must hold in both states."""
    pod = Pod(tmp_path, archive(ASYNC if is_async else SYNC))
    store = await open_store(pod.store)
    run = await submitted(store, active_deadline_seconds=1 if ends == "at its deadline" else 100)
    long = tmp_path / "long"
    if ends != "by itself":
        long.touch()
    process = pod.start("attempt", *of_run(pod, run))
    if ends in ("by SIGTERM", "cancelled"):
        await eventually(lambda: _running(store), "the task to run")
        if ends == "cancelled":
            seen = await store.get(WorkflowRun, "demo-1")
            assert seen is not None
            await store.update(seen.with_spec(cancel=True))
        process.send_signal(signal.SIGTERM)
    said, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE)

    ended = await store.get(WorkflowRun, "demo-1")
    assert ended is not None
    phase, code = {
        "by itself": (RunPhase.COMPLETED, ENDED),
        "by SIGTERM": (RunPhase.PENDING, INTERRUPTED),
        "cancelled": (RunPhase.CANCELLED, ENDED),
        "at its deadline": (RunPhase.FAILED, ENDED),
    }[ends]
    assert (ended.status.phase, process.returncode) == (phase, code), said
    await store.close()


async def _running(store: Store) -> bool:
    run = await store.get(WorkflowRun, "demo-1")
    return run is not None and run.status.phase is RunPhase.RUNNING


LOGS = """
import cloaca

with cloaca.WorkflowBuilder("demo"):
    @cloaca.task(id="only")
    def only(context):
        import logging
        logging.getLogger("loader").warning("half empty")
"""


async def test_what_a_task_logs_says_when_and_who(tmp_path: Path) -> None:
    pod = Pod(tmp_path, archive(LOGS))
    store = await open_store(pod.store)

    code, said = pod.finish("attempt", *of_run(pod, await submitted(store)))

    assert code == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING loader: half empty\n", said)
    await store.close()


async def test_a_package_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    pod = Pod(tmp_path, archive("import nothing_of_that_name"))
    store = await open_store(pod.store)

    code, _ = pod.finish("attempt", *of_run(pod, await submitted(store)))

    assert code == 1
    assert "nothing_of_that_name" in pod.words.read_text()
    await store.close()


async def eventually(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = await look()
        if found:
            return found
    pytest.fail(f"waited {PATIENCE:g} s for {what}")


@asynccontextmanager
async def polled(folder: Path, *arguments: str) -> AsyncIterator[tuple[subprocess.Popen[str], Store]]:
    """A poller of a package whose trigger fires once, that has fired."""
    pod = Pod(folder, archive(WORKFLOW + TRIGGER, triggers=[declared("inbox")]))
    store = await open_store(pod.store)
    source = PackageSource(url="https://packages.example.com/demo.cloacina")
    await store.create(CloacinaPackage(metadata=ObjectMeta(name="demo"), spec=PackageSpec(source=source)))
    effective = EffectiveSettings(
        workflow="demo",
        poll_interval="200ms",
        concurrency_policy=ConcurrencyPolicy.ALLOW,
        timeout="60s",
        config={},
        digest=pod.digest,
    )
    trigger = Trigger(
        metadata=ObjectMeta(name="demo-inbox"),
        spec=TriggerSpec(package_ref=PackageReference(name="demo"), name="inbox"),
        status=TriggerStatus(effective=effective),
    )
    await store.create(trigger)
    process = pod.start("poll", "--store", pod.store, "--namespace", "default", "--package", "demo", *arguments)

    async def fired() -> Any:
        return await store.list(WorkflowRun)

    try:
        (run,) = await eventually(fired, "the run of the trigger")
        assert run.spec.key == "once"
        yield process, store
    finally:
        process.kill()
        process.wait()
        await store.close()


def told_to_stop(process: subprocess.Popen[str]) -> str:
    """What it said by then."""
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


async def test_a_poller_polls_until_it_is_told_to_stop(tmp_path: Path) -> None:
    async with polled(tmp_path) as (process, _):
        told_to_stop(process)


async def test_a_poller_tells_prometheus_what_it_polls(tmp_path: Path) -> None:
    port = free_port()
    async with polled(tmp_path, "--metrics-port", str(port)) as (process, _):

        async def repeated() -> Any:
            seen = await asyncio.to_thread(scraped, port)
            return seen if seen["cloacina_polls_total default demo deduplicated"] else None

        seen = await eventually(repeated, "a poll that finds the key again")
        told_to_stop(process)
    assert seen["cloacina_polls_total default demo fired"] == seen["cloacina_fires_total default demo"] == 1
    assert seen["cloacina_polls_total default demo error"] == 0
    assert seen["cloacina_poll_lateness_seconds_count default demo"] >= 2
    assert seen["process_resident_memory_bytes"] > 1_000_000


async def test_a_poller_whose_port_is_taken_says_so_and_polls(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as sidecar:
        port = str(sidecar.getsockname()[1])
        async with polled(tmp_path, "--metrics-port", port) as (process, _):
            said = told_to_stop(process)
    assert f"no metrics: port {port} cannot be had" in said


async def test_a_poller_in_an_image_that_cannot_count_says_so_and_polls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing" / "prometheus_client.py"
    missing.parent.mkdir()
    missing.write_text("raise ModuleNotFoundError(name=__name__)")
    monkeypatch.setenv("PYTHONPATH", str(missing.parent))
    async with polled(tmp_path, "--metrics-port", str(free_port())) as (process, _):
        said = told_to_stop(process)
    assert "no metrics: the image lacks prometheus_client" in said
