"""``fire``, ``run PACKAGE``, ``logs``, ``status``: what they make and say, on a real store."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cloaca.cli.follow import follow_run
from cloaca.resources import (
    CloacinaPackage,
    ObjectMeta,
    RunPhase,
    TaskPhase,
    TaskStatus,
    Trigger,
    TriggerLedger,
    WorkflowRun,
    owned_by,
)
from cloaca.resources.ledger import LedgerSpec
from cloaca.resources.names import TRIGGER_UID_LABEL, key_hash, keyed_run_name, label_value, ledger_name
from cloaca.resources.run import TriggerReference
from cloaca.store import open_store

DIGEST = f"sha256:{'1' * 64}"
RUN = "workflowrun.cloacina.io/"


@pytest.fixture
def deployed(cloaca: Any, world: list[Any]) -> Any:
    """A home with the package data-ingest and its triggers, and no run."""
    package, *triggers = (obj for obj in world if isinstance(obj, (CloacinaPackage, Trigger)) and obj.name != "broken")
    cloaca.put(package, *triggers)
    return cloaca


def test_a_trigger_is_fired_as_the_poller_does_it(deployed: Any) -> None:
    said = deployed("fire", "data-ingest-inbox-watcher", "--context", '{"filename": "a.parquet"}')
    name = said.out.removeprefix(RUN).removesuffix(" created\n")
    assert (said.code, name.startswith("data-ingest-inbox-watcher-manual-")) == (0, True), said
    trigger = deployed.look(Trigger, "data-ingest-inbox-watcher")
    run = deployed.look(WorkflowRun, name)
    assert run.metadata.labels == {
        "cloacina.io/package": "data-ingest",
        "cloacina.io/trigger": "data-ingest-inbox-watcher",
        "cloacina.io/workflow": "data_ingest",
    }
    assert run.metadata.owner_references == (owned_by(trigger),)
    assert (run.spec.trigger_ref.name, run.spec.trigger_ref.uid) == (trigger.name, trigger.metadata.uid)
    assert (run.spec.workflow, run.spec.digest, run.spec.key) == ("data_ingest", DIGEST, None)
    assert run.spec.context == {"filename": "a.parquet"}
    assert said.err.startswith("note: no daemon runs on")


def test_a_key_fires_once_ever(deployed: Any) -> None:
    words = ("fire", "data-ingest-inbox-watcher", "--key", "a.parquet")
    uid = deployed.look(Trigger, "data-ingest-inbox-watcher").metadata.uid
    name = keyed_run_name("data-ingest-inbox-watcher", uid, "a.parquet")
    assert deployed(*words).out == f"{RUN}{name} created\n"
    said = deployed(*words)
    assert (said.code, said.out) == (
        0,
        f"{RUN}{name} unchanged: key 'a.parquet' was fired before: deduplicated by run {name} (Pending)\n",
    )
    assert deployed("get", "crun", "-o", "name").out == f"{RUN}{name}\n"


def test_a_key_whose_run_was_collected_is_refused(deployed: Any) -> None:
    trigger = deployed.look(Trigger, "data-ingest-inbox-watcher")
    uid = trigger.metadata.uid
    name = keyed_run_name(trigger.name, uid, "a.parquet")
    deployed.put(
        TriggerLedger(
            metadata=ObjectMeta(
                name=ledger_name(trigger.name, uid, 1),
                labels={TRIGGER_UID_LABEL: label_value(uid)},
                owner_references=(owned_by(trigger),),
            ),
            spec=LedgerSpec(
                trigger_ref=TriggerReference(name=trigger.name, uid=uid), segment=1, keys=(key_hash(uid, "a.parquet"),)
            ),
        )
    )
    said = deployed("fire", "data-ingest-inbox-watcher", "--key", "a.parquet")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        f"Error: trigger 'data-ingest-inbox-watcher' was not fired: key 'a.parquet' was fired before, by run {name}, "
        "which was collected since; a key fires once, ever: use another key, or none\n"
    )
    assert deployed("get", "crun", "-o", "name").out == ""
    assert deployed("fire", "data-ingest-inbox-watcher", "--key", "b.parquet").out.endswith(" created\n")


def test_without_a_key_every_fire_is_another_run(deployed: Any) -> None:
    for _ in range(2):
        deployed("fire", "ctrig/data-ingest-inbox-watcher")
    assert len(deployed("get", "crun", "-o", "name").out.splitlines()) == 2


def test_a_name_that_another_run_took_is_no_repetition(deployed: Any) -> None:
    uid = deployed.look(Trigger, "data-ingest-inbox-watcher").metadata.uid
    name = keyed_run_name("data-ingest-inbox-watcher", uid, "k")
    deployed.put(WorkflowRun.model_validate({"metadata": {"name": name}, "spec": {"workflow": "other"}}))
    said = deployed("fire", "data-ingest-inbox-watcher", "--key", "k")
    assert (said.code, said.out.endswith(" created\n"), name in said.out) == (0, True, False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(
            ["fire", "data-ingest-inbox-watcer"],
            "there is no Trigger 'data-ingest-inbox-watcer' in namespace 'default': did you mean "
            "'data-ingest-inbox-watcher'?",
            id="unknown trigger",
        ),
        pytest.param(
            ["fire", "data-ingest-nightly"],
            "trigger 'data-ingest-nightly' cannot be fired: data-ingest 1.0.0 declares no trigger 'nightly': it has "
            "inbox_watcher; see `cloaca describe ctrig data-ingest-nightly`",
            id="a trigger that is not ready",
        ),
        pytest.param(
            ["fire", "data-ingest-inbox-watcher", "--context", "{a: 1}"],
            "--context: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1); write "
            'it like \'{"file": "a.parquet"}\', or @FILE',
            id="no JSON",
        ),
        pytest.param(
            ["fire", "data-ingest-inbox-watcher", "--context", "[1]"],
            "--context: must be a JSON object such as '{\"file\": \"a.parquet\"}', not '[1]'",
            id="no object",
        ),
        pytest.param(
            ["fire", "data-ingest-inbox-watcher", "--context", "@none.json"],
            "--context: none.json cannot be read: No such file or directory",
            id="no file",
        ),
        pytest.param(
            ["fire", "data-ingest-inbox-watcher", "--key", ""],
            "--key: must have 1 to 1024 characters, not 0: use a hash of it",
            id="empty key",
        ),
        pytest.param(
            ["run", "data-ingest", "data_ingst"],
            "package 'data-ingest' has no workflow 'data_ingst': did you mean 'data_ingest'?",
            id="unknown workflow",
        ),
        pytest.param(
            ["run", "data-inges"],
            "there is no CloacinaPackage 'data-inges' in namespace 'default': did you mean 'data-ingest'?",
            id="unknown package",
        ),
    ],
)
def test_what_cannot_be_fired_or_run_says_why(words: list[str], sentence: str, deployed: Any) -> None:
    said = deployed(*words)
    assert (said.code, said.out, said.err) == (1, "", f"Error: {sentence}\n")
    assert deployed("get", "crun", "-o", "name").out == ""


def test_a_context_over_the_limit_is_refused(deployed: Any, tmp_path: Path) -> None:
    (tmp_path / "big.json").write_text(f'{{"big": "{"x" * 300_000}"}}')
    said = deployed("fire", "data-ingest-inbox-watcher", "--context", "@big.json")
    assert said.err == (
        "Error: --context: 300,010 bytes as JSON, over the limit of 262,144: store the data elsewhere and pass a "
        "reference to it\n"
    )


def test_a_run_of_a_package_is_pinned_to_its_archive_and_owned_by_it(deployed: Any) -> None:
    said = deployed("run", "package/data-ingest", "--context", "@-", stdin='{"filename": "a"}')
    name = said.out.removeprefix(RUN).removesuffix(" created\n")
    run = deployed.look(WorkflowRun, name)
    package = deployed.look(CloacinaPackage, "data-ingest")
    assert name.startswith("data-ingest-")
    assert (run.spec.workflow, run.spec.digest, run.spec.trigger_ref) == ("data_ingest", DIGEST, None)
    assert (run.spec.context, run.metadata.owner_references) == ({"filename": "a"}, (owned_by(package),))


def test_a_package_without_an_archive_cannot_be_run(cloaca: Any, world: list[Any]) -> None:
    cloaca.put(next(obj for obj in world if obj.name == "broken"))
    said = cloaca("run", "broken")
    assert said.code == 1
    assert said.err.startswith("Error: package 'broken' has no accepted archive yet: ImportFailed: importing 'broken'")


# --- following a run ---------------------------------------------------------------------------------------------

BEGAN = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)


@contextmanager
def executing(home: Any, patch: pytest.MonkeyPatch, phase: RunPhase, message: str | None = None) -> Iterator[None]:
    """Another process, as it were: executes the first run that it sees, so that it ends in ``phase``. It begins when
    the command follows the run, and goes on when that has said so."""
    followed, heard = threading.Event(), threading.Event()

    async def follow(store: Any, ref: Any, say: Any) -> WorkflowRun:
        def said(line: str) -> None:
            say(line)
            heard.set()

        begun = asyncio.Event()
        following = asyncio.ensure_future(follow_run(store, ref, said, begun))
        await begun.wait()
        followed.set()
        return await following

    patch.setattr("cloaca.cli.submit.follow_run", follow)

    async def execute() -> None:
        store = await open_store(str(home.database))
        while not (runs := await store.list(WorkflowRun)):
            await asyncio.sleep(0.01)
        seen = runs[0]
        ended = TaskPhase.COMPLETED if phase is RunPhase.COMPLETED else TaskPhase.FAILED
        for gate, change in zip(
            (followed, heard),
            (
                {"phase": RunPhase.RUNNING, "tasks": (TaskStatus(id="load", phase=TaskPhase.RUNNING),)},
                {
                    "phase": phase,
                    "tasks": (
                        TaskStatus(
                            id="load",
                            phase=ended,
                            started_at=BEGAN,
                            finished_at=BEGAN + timedelta(seconds=2),
                            message=message,
                        ),
                    ),
                    "started_at": BEGAN,
                    "finished_at": BEGAN + timedelta(seconds=2),
                    "message": message,
                },
            ),
            strict=True,
        ):
            assert gate.wait(60)
            seen = await store.write_status(seen.with_status(**change))
        await store.close()

    thread = threading.Thread(target=lambda: asyncio.run(execute()))
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(
    ("phase", "message", "code", "last"),
    [
        pytest.param(RunPhase.COMPLETED, None, 0, "Completed in 2.00s", id="completed"),
        pytest.param(RunPhase.FAILED, "no space", 1, "Failed in 2.00s: no space", id="failed"),
    ],
)
def test_waiting_follows_the_run_to_its_end(
    phase: RunPhase, message: str | None, code: int, last: str, deployed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with executing(deployed.home, monkeypatch, phase, message):
        said = deployed("fire", "data-ingest-inbox-watcher", "--wait")
    first, *lines = said.out.splitlines()
    assert (said.code, first.endswith(" created")) == (code, True)
    assert lines == [
        "  load   Running",
        f"  load   {phase.value.ljust(9)}   2.00s  {message or ''}".rstrip(),
        last,
    ]


# --- logs --------------------------------------------------------------------------------------------------------


def put_run(cloaca: Any, phase: RunPhase) -> Path:
    run = WorkflowRun.model_validate({"metadata": {"name": "r"}, "spec": {"workflow": "demo"}})
    cloaca.put(run.with_status(phase=phase))
    return Path(cloaca.home.run_log("r", "default"))


def write_log(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        pytest.param([], "one\ntwo\nthree\n", id="all"),
        pytest.param(["--tail", "2"], "two\nthree\n", id="the last two"),
        pytest.param(["--tail", "0"], "", id="none"),
        pytest.param(["--tail", "9"], "one\ntwo\nthree\n", id="more than there are"),
        pytest.param(["-f"], "one\ntwo\nthree\n", id="followed to the end of a run that has ended"),
    ],
)
def test_a_log_is_shown(words: list[str], shown: str, cloaca: Any) -> None:
    write_log(put_run(cloaca, RunPhase.COMPLETED), "one\ntwo\nthree\n")
    for name in ("r", "crun/r", "workflowrun.cloacina.io/r"):
        said = cloaca("logs", name, *words)
        assert (said.code, said.out, said.err) == (0, shown, "")


def test_a_log_is_followed_until_the_run_ends(cloaca: Any) -> None:
    path = put_run(cloaca, RunPhase.PENDING)

    async def go_on() -> None:
        store = await open_store(str(cloaca.home.database))
        seen = await store.get(WorkflowRun, "r")
        assert seen is not None
        for text in ("one\n", "one\ntwo\n"):
            await asyncio.sleep(0.15)
            write_log(path, text)
        await store.write_status(seen.with_status(phase=RunPhase.COMPLETED))
        await store.close()

    thread = threading.Thread(target=lambda: asyncio.run(go_on()))
    thread.start()
    said = cloaca("logs", "r", "--follow")
    thread.join()
    assert (said.code, said.out) == (0, "one\ntwo\n")


def test_a_run_without_a_log_says_why(cloaca: Any) -> None:
    path = put_run(cloaca, RunPhase.PENDING)
    said = cloaca("logs", "r")
    assert said.code == 1
    assert said.err == (
        f"Error: run 'r' has no log: no process was started for it here ({path} is not there). It is Pending; no "
        f"daemon runs on {cloaca.home.root}, so nothing is polled and no run starts: start `cloaca daemon`\n"
    )


def test_a_silent_run_says_so(cloaca: Any) -> None:
    path = put_run(cloaca, RunPhase.COMPLETED)
    write_log(path, "")
    assert cloaca("logs", "r").err == f"run 'r' printed nothing ({path} is empty)\n"


def test_the_log_of_a_package(deployed: Any) -> None:
    said = deployed("logs", "package/data-ingest")
    assert said.err.startswith("Error: package 'data-ingest' has no log: its code was not imported here yet")
    write_log(deployed.home.package_log("data-ingest", "default"), "polled\n")
    assert deployed("logs", "cpkg/data-ingest").out == "polled\n"


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        pytest.param("q", "there is no WorkflowRun 'q' in namespace 'default'", id="unknown run"),
        pytest.param("ctrig/x", "'ctrig/x' has no log of its own: see `cloaca logs package/NAME`", id="a trigger"),
        pytest.param("pod/x", "there is no kind 'pod'", id="unknown kind"),
    ],
)
def test_what_has_no_log_is_said(what: str, sentence: str, deployed: Any) -> None:
    said = deployed("logs", what)
    assert (said.code, said.err.startswith(f"Error: {sentence}")) == (1, True), said.err


# --- status ------------------------------------------------------------------------------------------------------


def test_the_status_says_what_is_not_ready_and_why(cloaca: Any, world: list[Any]) -> None:
    assert cloaca("status").out == (
        "Daemon:     not running: start `cloaca daemon`\n"
        f"Home:       {cloaca.home.root}\n"
        "Store:      empty: nothing was ever deployed here\n"
    )
    cloaca.put(*world)
    assert cloaca("status").out == (
        "Daemon:     not running: start `cloaca daemon`\n"
        f"Home:       {cloaca.home.root}\n"
        "Packages:   2\n"
        "Triggers:   2, 1 suspended\n"
        "Runs:       3: 1 Completed, 1 Failed, 1 Pending\n"
        "Wrong:\n"
        "  cloacinapackage.cloacina.io/broken: not ready, ImportFailed: importing 'broken' failed: ZeroDivisionError: "
        "division by zero (broken/__init__.py:3)...\n"
        "  trigger.cloacina.io/data-ingest-nightly: not ready, TriggerNotDeclared: data-ingest 1.0.0 declares no "
        "trigger 'nightly': it has inbox_watcher\n"
        "  workflowrun.cloacina.io/data-ingest-inbox-watcher-6: Failed after 12.0s: task 'load' failed: OSError: no "
        "space left on device\n"
    )


def test_a_daemon_is_known_by_the_lock_that_it_holds(deployed: Any) -> None:
    with deployed.home.lock.open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        assert "Daemon:     not running" in deployed("status").out, "a lock file that was left behind"
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert "Daemon:     running, process 4711\n" in deployed("status").out
        assert deployed("fire", "data-ingest-inbox-watcher").err == ""
        assert "Daemon:" not in deployed("describe", "ctrig", "data-ingest-inbox-watcher").out
    assert "Daemon:        no daemon runs on" in deployed("describe", "ctrig", "data-ingest-inbox-watcher").out
