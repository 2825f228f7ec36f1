"""Every command in odd places: it does its work or says what is wrong, and the exit code tells whether it was done."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from builders import archive as built
from builders import declared
from local.cli.conftest import Started

from cloaca.cli.main import SECTIONS
from cloaca.home import Home
from cloaca.resources import RunPhase, Trigger, WorkflowRun
from cloaca.resources.conditions import is_true
from cloaca.resources.package import CloacinaPackage
from cloaca.store import open_store
from cloaca.store.of_home import file_url

CODE = """
import cloaca

with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="only", retry_attempts=0)
    def only(context):
        print("worked on", ascii(context.get("file")))
        context.set("done", True)

@cloaca.trigger(name="quiet", poll_interval="1h")
def quiet():
    return cloaca.TriggerResult.skip("nichts Ne\u00fces")
"""
ODD_NAME = "ho me?#%41'é"
BY_HAND = """
apiVersion: cloacina.io/v1alpha1
kind: WorkflowRun
metadata: {{name: {name}}}
spec: {{workflow: demo, packageRef: {{name: {name}}}, context: {{file: "é"}}}}
---
apiVersion: cloacina.io/v1alpha1
kind: CloacinaPackage
metadata: {{name: {name}}}
spec: {{suspend: true, source: {{url: "file:///nonexistent/of-which-a-run-waits.cloacina"}}}}
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is odd."""

    environment: dict[str, str | None] = field(default_factory=dict)  # None: not set
    closed: tuple[int, ...] = ()
    full: tuple[int, ...] = ()
    broken: bool = False  # nobody reads standard output any more
    limit: int | None = None  # of open files
    umask: int = 0o022
    shown: int = 0  # exit code of a command that shows something
    heavy: bool = False  # whether commands that start processes are called, too
    prints: bool = True  # whether user code that runs here can print

    def variables(self, home: Home) -> dict[str, str]:
        """The environment of a process there."""
        both = {**os.environ, "CLOACINA_HOME": str(home.root), **self.environment}
        return {name: value for name, value in both.items() if value is not None}

    def enter(self) -> None:
        """In a process that is about to execute a program."""
        os.umask(self.umask)
        for number in self.closed:
            os.close(number)
        for number in self.full:
            os.dup2(os.open("/dev/full", os.O_WRONLY), number)
        if self.limit is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.limit, self.limit))


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
PLACES = {
    "standard output closed": Place(closed=(1,)),
    "standard input and error closed": Place(closed=(0, 2)),
    "all three closed": Place(closed=(0, 1, 2), heavy=True),
    "standard output full": Place(full=(1,), shown=1),
    "both outputs full": Place(full=(1, 2), shown=1, heavy=True, prints=False),
    "nobody reads": Place(broken=True),
    "no docstrings, 60 descriptors": Place(environment={"PYTHONOPTIMIZE": "2"}, limit=60, heavy=True),
    "an ASCII locale": Place(environment=ASCII, heavy=True),
    "ASCII streams": Place(environment={"PYTHONIOENCODING": "ascii"}),
    "Latin-1 streams, no terminal, one column": Place(
        environment={"PYTHONIOENCODING": "latin-1", "TERM": None, "COLUMNS": "1"}
    ),
    "no home, no temporary folder, no rights": Place(
        environment={"HOME": None, "TMPDIR": "/nonexistent"}, umask=0o777, heavy=True
    ),
}
SHOWING = {"help", "version", "poll", "status", "get", "json", "yaml", "describe", "history", "watch", "logs"}
HEAVY = {"check", "pack", "run-here", "poll"}  # each starts a process or two: not everywhere


def verbs(place: str, made: Path) -> dict[str, list[str]]:
    """All commands, in an order in which each can be done."""
    run, key = f"by-hand-{made.name}", f"é {place}"
    context = json.dumps({"file": f"é {place}"}, ensure_ascii=False)
    (made / "run.yaml").write_text(BY_HAND.format(name=run), encoding="utf-8")
    return {
        "help": ["--help"],
        "version": ["version"],
        "new": ["new", "fresh", "--in", str(made)],
        "check": ["check", str(made / "demo.cloacina")],
        "pack": ["pack", str(made / "fresh"), "-o", str(made)],
        "run-here": ["run", str(made / "demo.cloacina"), "--context", context],
        "poll": ["poll", str(made / "demo.cloacina"), "quiet"],
        "deploy": ["deploy", str(made / "demo.cloacina"), "--wait"],
        "status": ["status"],
        "fire": ["fire", "demo-quiet", "--key", key, "--context", context],
        "fire-again": ["fire", "demo-quiet", "--key", key, "--wait"],
        "run": ["run", "package/demo", "--context", context, "--wait"],
        "replay": ["replay", "known", "--wait"],
        "get": ["get", "crun"],
        "json": ["get", "crun", "-o", "json"],
        "yaml": ["get", "crun", "-o", "yaml"],
        "describe": ["describe", "ctrig", "demo-quiet"],
        "history": ["history", "demo-quiet"],
        "watch": ["watch", "--until-done"],
        "logs": ["logs", "known"],
        "suspend": ["suspend", "ctrig", "demo-quiet"],
        "resume": ["resume", "ctrig", "demo-quiet"],
        "apply": ["apply", "-f", str(made / "run.yaml")],
        "cancel": ["cancel", run],
        "delete": ["delete", f"crun/{run}", f"cpkg/{run}"],
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with an odd name, the daemon on it, its package, and a run named ``known`` that has ended."""
    folder = tmp_path_factory.mktemp("odd")
    home = Home(folder / ODD_NAME)
    started = Started(("daemon", "--home", str(home.root)), folder)
    data = built(CODE, triggers=[declared("quiet", poll_interval="1h")])
    try:
        until(lambda: home.packages.is_dir(), started)
        (home.packages / "demo-1.0.0.cloacina").write_bytes(data)
        until(lambda: is_ready(home), started)
        one = WorkflowRun.model_validate(
            {"metadata": {"name": "known"}, "spec": {"workflow": "demo", "packageRef": {"name": "demo"}}}
        )
        asked(home, lambda store: store.create(one))
        until(lambda: asked(home, lambda store: store.get(WorkflowRun, "known")).status.phase.finished, started)
        yield home
    finally:
        assert started.stop() == 0


def test_every_command_is_among_them(tmp_path: Path) -> None:
    called = {words[0] for words in verbs("", tmp_path).values()}
    assert {entry.name for entries in SECTIONS.values() for entry in entries} - called == {"daemon"}  # it has its own


@pytest.mark.xdist_group("odd places")  # the world is made once
@pytest.mark.parametrize("place", PLACES)
def test_every_command_is_done_and_says_so_with_its_exit_code(place: str, world: Home, tmp_path: Path) -> None:
    odd = PLACES[place]
    made = tmp_path / f"p{list(PLACES).index(place)}"
    made.mkdir()
    (made / "demo.cloacina").write_bytes((world.packages / "demo-1.0.0.cloacina").read_bytes())
    todo = verbs(place, made)
    before = asked(world, lambda store: store.get(Trigger, "demo-quiet")).metadata.generation
    todo = {name: words for name, words in todo.items() if odd.heavy or name not in HEAVY}
    codes, said = called(list(todo.values()), odd, world, made)
    expected = {name: odd.shown if name in SHOWING else 0 for name in todo}
    if "run-here" in todo and not odd.prints:
        expected["run-here"] = 1  # the task itself fails: it prints
    assert dict(zip(todo, codes, strict=True)) == expected, said
    assert not [words for words in said if "Traceback" in words or "fault of cloaca" in words]
    runs = asked(world, lambda store: store.list(WorkflowRun))
    ours = [(run.spec.key, run.status.phase) for run in runs if run.spec.context.get("file") == f"é {place}"]
    assert sorted(ours, key=repr) == [(f"é {place}", RunPhase.COMPLETED), (None, RunPhase.COMPLETED)]
    assert (made / "fresh" / "pyproject.toml").stat().st_mode & 0o600 == 0o600
    assert (made / "fresh-0.1.0.cloacina").exists() is odd.heavy
    trigger = asked(world, lambda store: store.get(Trigger, "demo-quiet"))
    assert trigger.spec.suspend is False
    assert trigger.metadata.generation == before + 2  # it was suspended in between
    assert asked(world, lambda store: store.get(WorkflowRun, f"by-hand-{made.name}")) is None


def called(jobs: list[list[str]], odd: Place, home: Home, made: Path) -> tuple[list[int], list[str]]:
    """(exit codes, what was said on standard error) of all jobs."""
    (made / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")

    reading, writing = os.pipe()
    os.close(reading)
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("odd_verbs.py")), str(made / "jobs.json"), str(made / "answers")],
        cwd=made,
        env=odd.variables(home),
        stdin=subprocess.PIPE,
        stdout=writing if odd.broken else subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=odd.enter,  # a test has one thread
        timeout=300,
    )
    os.close(writing)
    (made / "answers").chmod(0o600)
    answers = json.loads((made / "answers").read_text(encoding="utf-8"))
    return [code for code, _ in answers], [words for _, words in answers]


def is_ready(home: Home) -> bool:
    package = asked(home, lambda store: store.get(CloacinaPackage, "demo"))
    return package is not None and is_true(package.status.conditions, "Ready")


def asked(home: Home, question: Callable[[Any], Any]) -> Any:
    """What the store of a home answers; None: there is no store yet."""

    async def work() -> Any:
        store = await open_store(file_url(home.database))
        try:
            return await question(store)
        finally:
            await store.close()

    return asyncio.run(work()) if home.database.exists() else None


def until(look: Callable[[], Any], started: Started) -> None:
    """Return once ``look`` is true."""
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline, started.log.read_text()[-3000:]
        time.sleep(0.05)


DAEMONS = {
    "streams closed, no docstrings": ("new\nline", Place(closed=(0, 1, 2), environment={"PYTHONOPTIMIZE": "2"})),
    "outputs full, an ASCII locale": ("é?", Place(full=(1, 2), environment=ASCII, umask=0o777)),
    "no home, no temporary folder, 64 descriptors": (
        "a#b%41 c",
        Place(environment={"HOME": None, "TMPDIR": "/nonexistent"}, limit=64),
    ),
}


@pytest.mark.parametrize("place", DAEMONS)
def test_a_daemon_deploys_and_runs_and_stops(place: str, tmp_path: Path) -> None:
    name, odd = DAEMONS[place]
    home = Home(tmp_path / name)
    (tmp_path / "demo.cloacina").write_bytes(built(CODE, triggers=[declared("quiet", poll_interval="1h")]))
    command = [sys.executable, "-m", "cloaca.cli.main"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": odd.variables(home), "preexec_fn": odd.enter}
    daemon = subprocess.Popen([*command, "daemon"], **options)
    try:
        deadline = time.monotonic() + 60
        while not home.lock.exists() or not home.lock.read_text():
            assert daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for words in (
            ["deploy", "demo.cloacina", "--wait"],
            ["fire", "demo-quiet", "--context", '{"file": "é"}', "--wait"],
        ):
            assert subprocess.run([*command, *words], **options, timeout=60).returncode == 0
        [run] = asked(home, lambda store: store.list(WorkflowRun))
        assert home.run_log(run.name, "default").read_text() == "worked on '\\xe9'\n"
        daemon.terminate()
        assert daemon.wait(60) == 0
    finally:
        daemon.kill()
        daemon.wait()


def test_a_daemon_says_that_a_home_whose_name_is_not_utf_8_cannot_be_watched(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cloaca.cli.main", "daemon", "--home", os.fsencode(tmp_path) + b"/\xff"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    sentence = f"the folder '{tmp_path}/\\udcff' cannot be watched: its path is not UTF-8: rename it"
    assert (said.returncode, said.stderr) == (1, f"cloaca daemon: {sentence}\n")
    assert list(tmp_path.iterdir()) == []


def in_a_namespace(mounts: str, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What a command comes to in a mount namespace of its own, where ``mounts`` were made and ``folder`` is /mnt."""
    script = f'mount --bind {folder} /mnt && {mounts} && cd /proc && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "cloaca.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


MAY_MOUNT = pytest.mark.skipif(
    subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
    != 0,
    reason="this user may not mount anything",
)
READ_ONLY = "mount -t tmpfs -o ro none /tmp && mount -t tmpfs -o ro none /var/tmp"
FULL = "mount -t tmpfs -o size=16k none /tmp && mount -t tmpfs -o ro none /var/tmp && head -c {} /dev/zero >/tmp/fill"


@MAY_MOUNT
@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        pytest.param(READ_ONLY, "no temporary folder can be made: No usable temporary directory", id="read-only"),
        pytest.param(FULL.format(16384), "no temporary folder can be made: No usable temporary directory", id="full"),
        pytest.param(FULL.format(12288), "No space left on device", id="full meanwhile"),
    ],
)
@pytest.mark.parametrize("verb", [["check"], ["poll"], ["run"]], ids=["check", "poll", "run"])
def test_a_temporary_folder_that_cannot_be_used_is_said(
    mounts: str, words: str, verb: list[str], tmp_path: Path
) -> None:
    (tmp_path / "demo.cloacina").write_bytes(built(CODE, triggers=[declared("quiet", poll_interval="1h")]))
    said = in_a_namespace(mounts, [*verb, "/mnt/demo.cloacina"], tmp_path)
    assert (said.returncode, words in said.stderr) == (1, True), said.stderr
    assert "Traceback" not in said.stderr


@MAY_MOUNT
def test_deploying_an_archive_needs_no_temporary_folder(tmp_path: Path) -> None:
    (tmp_path / "demo.cloacina").write_bytes(built(CODE, triggers=[declared("quiet", poll_interval="1h")]))
    said = in_a_namespace(READ_ONLY, ["deploy", "/mnt/demo.cloacina", "--home", "/mnt/home"], tmp_path)
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "home" / "packages").stat().st_mode & 0o777 == 0o700
