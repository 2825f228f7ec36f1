"""User code that raises, returns and prints what cannot be printed, under the daemon: each is recorded, at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hostile
import pytest
from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.resources.conditions import find
from cloaca.resources.meta import PackageReference
from cloaca.resources.phases import RunPhase
from cloaca.resources.trigger import TickOutcome

CODE = Path(hostile.__file__).read_text(encoding="utf-8")
"""The package has the exceptions itself."""

TASKS = """
import cloaca

def raising(kind):
    def function(context):
        print(f"\\udce9 is printed before {kind}")
        raise exception(kind)
    return function

with cloaca.WorkflowBuilder("demo"):
    for number, kind in enumerate(EXCEPTIONS):
        cloaca.task(id=f"t{number}", retry_attempts=0)(raising(kind))
    @cloaca.task(id="good", retry_attempts=0)
    def good(context):
        print("caf\\udce9.csv and \\x00")
        context.set("done", True)
"""

GOOD = """
with cloaca.WorkflowBuilder("good"):
    @cloaca.task(id="fine", retry_attempts=0)
    def fine(context):
        context.set("done", "a\\x00b")

@cloaca.trigger(name="good", poll_interval="100ms")
def watch():
    return cloaca.TriggerResult.fire({"name": "a\\x00b"}, key="a\\x00b")
"""


def declared_tasks(*ids: str) -> list[dict[str, Any]]:
    return [{"id": task, "function": f"demo:{task}", "dependencies": []} for task in ids]


async def test_a_run_has_the_error_of_each_of_its_tasks_in_one_attempt(anywhere: Daemon) -> None:
    daemon = anywhere
    ids = [f"t{number}" for number in range(len(hostile.EXCEPTIONS))]
    tasks = [
        {**task, "function": "demo:raising.<locals>.function"} if task["id"] != "good" else task
        for task in declared_tasks(*ids, "good")
    ]
    daemon.deploy(archive(CODE + TASKS, tasks=tasks))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    spec = RunSpec(package_ref=PackageReference(name="demo"), workflow="demo")
    await daemon.submit(WorkflowRun(metadata=ObjectMeta(name="odd"), spec=spec))
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)

    assert (run.status.phase, run.status.attempt, run.status.failures) == (RunPhase.FAILED, 1, 0)
    phases = {task.id: task.phase.value for task in run.status.tasks}
    assert phases == {**dict.fromkeys(ids, "Failed"), "good": "Completed"}
    messages = {kind: task.message for kind, task in zip(hostile.EXCEPTIONS, run.status.tasks, strict=False)}
    assert messages["str raises"] == "StrRaises: its __str__ raised AttributeError"
    assert messages["lone surrogates"] == "OSError: no such file: caf\\udce9.csv"
    log = daemon.home.run_log("odd", "default").read_bytes()
    assert log.count(b"\\udce9 is printed before ") == len(hostile.EXCEPTIONS)
    assert b"caf\\udce9.csv and \0" in log
    assert len(log) < 100_000


ODD = {
    "str raises": "raise exception('str raises')",
    "no class, no Exception": "raise exception('no class, no Exception')",
    "CancelledError": "raise exception('CancelledError')",
    "a large message": "raise exception('a large message')",
    "lone surrogates": "raise exception('lone surrogates')",
    "NUL and escapes": "raise exception('NUL and escapes')",
    "endless notes": "raise exception('endless notes')",
    "a reason that is none": "return cloaca.TriggerResult.skip(exception('str raises'))",
    "a key that is not UTF-8": "return cloaca.TriggerResult.fire(key='caf\\udce9.csv')",
    "a large state": "state.set('rows', 'x' * 300_000)",
}


@pytest.mark.parametrize("keyword", ["def", "async def"])
async def test_a_trigger_has_its_error_at_once_and_is_degraded(anywhere: Daemon, keyword: str) -> None:
    daemon, code, triggers = anywhere, [CODE, "import cloaca\n", GOOD], [declared("good", "good")]
    for number, body in enumerate(ODD.values()):
        code.append(f'@cloaca.trigger(name="odd{number}", poll_interval="100ms")\n')
        code.append(f"{keyword} odd{number}(state):\n    {body}\n\n")
        triggers.append(declared(f"odd{number}", "good", poll_interval="100ms"))
    triggers[0]["poll_interval"] = "100ms"
    daemon.deploy(archive("".join(code), tasks=declared_tasks("fine"), triggers=triggers))
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    errors = {}
    for number, kind in enumerate(ODD):
        name = f"demo-odd{number}"
        trigger = await daemon.trigger(
            name, lambda it: (degraded := find(it.status.conditions, "Degraded")) is not None
            and degraded.status.value == "True",
        )  # fmt: skip
        degraded = find(trigger.status.conditions, "Degraded")
        assert degraded is not None
        errors[kind] = first = (trigger.status.last_error or "").splitlines()[0]
        assert degraded.message.startswith(f"the last polls failed, most recently with: {first}")
        assert {tick.outcome for tick in trigger.status.ticks} == {TickOutcome.ERROR}
        assert trigger.status.ticks[0].duration_ms < 10_000
        assert len(trigger.status.last_error or "") <= 4_096
    assert errors["str raises"] == "StrRaises: its __str__ raised AttributeError"
    assert errors["CancelledError"] == "CancelledError"
    assert errors["NUL and escapes"] == "ValueError: \\x00 \\x1b[31mred\\x1b[0m \\x85\\x0d"
    assert errors["a large message"].startswith("ValueError: xxx")
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert (run.spec.key, run.status.context) == ("a\x00b", {"name": "a\x00b", "done": "a\x00b"})
    assert daemon.stop() == 0
    assert max(map(len, daemon.log.splitlines())) < 2_000
    assert "Traceback" not in daemon.log
    json.dumps(errors)


@pytest.mark.parametrize("kind", ["str raises", "metaclass", "no traceback", "lone surrogates", "KeyboardInterrupt"])
async def test_an_import_that_raises_anything_is_refused_with_what_it_was(daemon: Daemon, kind: str) -> None:
    daemon.deploy(archive(f"{CODE}{WORKFLOW}\nraise exception({kind!r})\n"))
    daemon.start()
    package = await daemon.package(Agreed=("False", "ImportFailed"))
    agreed = find(package.status.conditions, "Agreed")
    assert agreed is not None
    first = agreed.message.splitlines()[0]
    name = type.__dict__["__name__"].__get__(type(hostile.exception(kind)))
    assert first.startswith(f"importing 'demo' failed: {name}")
    assert "(demo/__init__.py:" in first
    assert "raise exception" in agreed.message


BACKGROUND = """
import asyncio, sys
import cloaca

async def exits():
    sys.exit(3)

async def leave():
    left.append(asyncio.ensure_future(exits()))
    await asyncio.sleep(0.1)

left = []

with cloaca.WorkflowBuilder("demo"):
    @cloaca.task(id="only", retry_attempts=0)
    async def only(context):
        await leave()

@cloaca.trigger(name="watch", poll_interval="100ms")
async def watch():
    await leave()
    return cloaca.TriggerResult.fire(key="once")
"""


async def test_what_an_async_function_leaves_behind_takes_no_process_down(daemon: Daemon) -> None:
    """asyncio lets a SystemExit through to whoever runs the loop: a run's process, or the worker of all triggers."""
    daemon.deploy(archive(BACKGROUND, triggers=[declared("watch", poll_interval="100ms")]))
    daemon.start()
    (run,) = await daemon.runs(lambda runs: bool(runs) and runs[0].status.phase.finished)
    assert (run.status.phase, run.status.attempt, run.status.failures) == (RunPhase.COMPLETED, 1, 0)
    trigger = await daemon.trigger("demo-watch", lambda it: it.status.ticks[0].outcome is TickOutcome.DEDUPLICATED)
    assert (trigger.status.consecutive_errors, trigger.status.last_error) == (0, None)
    said = "a task in the background of a trigger raised SystemExit: 3"
    assert said in daemon.home.package_log("demo", "default").read_text()
    assert "a task in the background raised SystemExit: 3" in daemon.home.run_log(run.name, "default").read_text()
