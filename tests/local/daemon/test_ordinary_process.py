"""A process of user code is an ordinary Python process, wherever it runs: in the daemon, a pod, `cloaca run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import archive
from daemon_process import Daemon
from pod_process import Pod

from cloaca.resources import ObjectMeta, RunSpec, WorkflowRun
from cloaca.resources.trigger import PackageReference
from cloaca.store import open_store

MODULE = """
import atexit, contextvars, decimal, multiprocessing, os, pathlib, signal, sys, tempfile, threading, time
from concurrent.futures import ProcessPoolExecutor
import cloaca

FOLDER = pathlib.Path(os.environ["FOLDER"])
MADE_AT_IMPORT = tempfile.TemporaryDirectory(dir=FOLDER)
VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")
VARIABLE.set("imported")
decimal.getcontext().prec = 9
signal.signal(signal.SIGUSR1, lambda *_: None)
OPENED = (FOLDER / "opened").open("a")
OPENED.write(f"imported-by-{os.getpid()}\\n")
kept = []

class Tee:
    def __init__(self, *to): self.to = to
    def write(self, text): [stream.write(text) for stream in self.to]
    def flush(self): [stream.flush() for stream in self.to]

sys.stdout = Tee(sys.stdout, (FOLDER / "tee").open("a"))

def at_end():
    with (FOLDER / "ended").open("a") as file:
        file.write(f"{os.getpid()}\\n")

atexit.register(at_end)

def square(number):
    return number * number

def uploading():
    time.sleep(0.3)
    (FOLDER / "uploaded").touch()

with cloaca.WorkflowBuilder("demo"):
    @cloaca.task(id="only", retry_attempts=0)
    def only(context):
        print("printed")
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        child.join(60)
        context.set("terminated", child.exitcode)
        child.kill()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            context.set("pool", pool.map(square, range(4)))
        for method in ("spawn", "forkserver"):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
                context.set(method, list(pool.map(square, range(3))))
        context.set("argv", sys.argv)
        context.set("shadowed", [path for path in sys.path if path in ("", os.getcwd())])
        context.set("usr1", callable(signal.getsignal(signal.SIGUSR1)))
        context.set("sigint", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        context.set("stdin", sys.stdin.read())
        context.set("prec", decimal.getcontext().prec)
        context.set("variable", VARIABLE.get())
        context.set("folder", os.path.isdir(MADE_AT_IMPORT.name))
        decimal.getcontext().prec = 3
        VARIABLE.set("only")
        kept.append((FOLDER / "left-open").open("w"))
        kept[0].write("written")
        OPENED.write("run\\n")
        (FOLDER / "pid").write_text(str(os.getpid()))
        threading.Thread(target=uploading).start()

    @cloaca.task(id="after", dependencies=["only"], retry_attempts=0)
    def after(context):
        context.set("after", [decimal.getcontext().prec, VARIABLE.get()])

    @cloaca.task(id="on_loop", dependencies=["after"], retry_attempts=0)
    async def on_loop(context):
        context.set("on_loop", [decimal.getcontext().prec, VARIABLE.get()])
        VARIABLE.set("on loop")
        context.set("end", True)
"""
THREAD = "\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
TASKS = [
    {"id": "only", "function": "demo:only", "dependencies": []},
    {"id": "after", "function": "demo:after", "dependencies": ["only"]},
    {"id": "on_loop", "function": "demo:on_loop", "dependencies": ["after"]},
]
EXPECTED = {
    "terminated": -15,
    "pool": [0, 1, 4, 9],
    "spawn": [0, 1, 4],
    "forkserver": [0, 1, 4],
    "argv": ["demo"],
    "shadowed": [],
    "usr1": True,
    "sigint": True,
    "stdin": "",
    "prec": 9,
    "variable": "imported",
    "folder": True,
    "after": [9, "imported"],
    "on_loop": [9, "imported"],
    "end": True,
}


def by_hand(name: str = "by-hand", workflow: str = "demo") -> WorkflowRun:
    spec = RunSpec(workflow=workflow, package_ref=PackageReference(name="demo"))
    return WorkflowRun(metadata=ObjectMeta(name=name), spec=spec)


async def in_daemon(daemon: Daemon, data: bytes, folder: Path) -> tuple[dict[str, Any], str]:
    """The context of the second of two runs, and what it printed."""
    (folder / "csv.py").write_text("raise SystemExit('a stray module was imported')")
    daemon.environment["FOLDER"] = str(folder)
    daemon.start(folder)
    daemon.deploy(data)
    await daemon.package(Ready=("True", "Ready"))
    for name in ("first", "second"):
        await daemon.submit(by_hand(name))
        runs = await daemon.runs(lambda runs: len(runs) > 0 and all(it.status.phase.finished for it in runs))
    assert [(it.status.phase.value, it.status.message) for it in runs] == [("Completed", None)] * 2
    log = daemon.home.run_log("second", "default")

    async def ended(_: object) -> bool:
        handlers = (folder / "pid").read_text() in (folder / "ended").read_text().split()
        opened = (folder / "opened").read_text().split().count("run") == 2
        return handlers and opened and (folder / "left-open").read_text() == "written"

    await daemon.eventually("its exit handlers", ended)
    (second,) = (it for it in runs if it.name == "second")
    return second.status.context or {}, log.read_text()


async def in_pod(data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    pod = Pod(folder / "pod", data)
    monkeypatch.setenv("FOLDER", str(folder))
    store = await open_store(pod.store)
    run = await store.create(by_hand())
    who = ["--run", run.name, "--uid", run.metadata.uid, "--attempt", "1"]
    code, said = pod.finish("attempt", "--store", pod.store, "--namespace", "default", *who)
    assert code == 0, said
    ended = await store.get(WorkflowRun, run.name)
    await store.close()
    assert ended is not None
    return ended.status.context or {}, said


def under_run(data: bytes, folder: Path) -> tuple[dict[str, Any], str]:
    (folder / "demo.cloacina").write_bytes(data)
    command = [sys.executable, "-P", "-m", "cloaca.cli.main", "run", "demo.cloacina"]
    environment = {**os.environ, "FOLDER": str(folder), "CLOACINA_HOME": str(folder / "home")}
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout[said.stdout.index("\n{") :]), said.stderr


@pytest.mark.parametrize("place", ["forked", "spawned", "in a pod", "under cloaca run"])
async def test_a_task_finds_what_an_ordinary_process_has(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = tmp_path / "folder"
    (folder / "pod").mkdir(parents=True)
    data = archive(MODULE + (THREAD if place == "spawned" else ""), tasks=TASKS)

    if place == "in a pod":
        context, printed = await in_pod(data, folder, monkeypatch)
    elif place == "under cloaca run":
        context, printed = under_run(data, folder)
    else:
        context, printed = await in_daemon(daemon, data, folder)

    if place == "under cloaca run":
        context["sigint"] = True  # asyncio has its own handler there
    assert context == EXPECTED
    assert "printed" in printed
    assert "printed" in (folder / "tee").read_text()
    assert (folder / "left-open").read_text() == "written"
    opened = (folder / "opened").read_text().split()
    assert opened.count("run") == (2 if place in ("forked", "spawned") else 1)
    assert (folder / "uploaded").exists(), "a thread that is no daemon was not waited for"
    imported = [word for word in opened if word != "run"]
    assert len(imported) == len(set(imported)), "what the import wrote was written again by a fork"
