"""The command line and a daemon on one home: deploy, look, fire, wait, take away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import archive, declared
from local.cli.conftest import Started

Cloaca = Callable[..., Any]

CODE = """
import cloaca

with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="only", retry_attempts=0)
    def only(context):
        print("working on", context.get("file"))
        if context.get("fail"):
            raise ValueError("asked to fail")
        context.set("done", True)

@cloaca.trigger(name="quiet", poll_interval="200ms")
def quiet():
    return cloaca.TriggerResult.skip("nothing to do")
"""


@pytest.fixture
def daemon(tmp_path: Path, home: Path) -> Iterator[Started]:
    started = Started(("daemon", "--log-level", "debug"), tmp_path)
    yield started
    if started.process.poll() is None:
        started.stop()


def eventually(look: Callable[[], Any], what: str, daemon: Started) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.1)
    pytest.fail(f"waited for {what}\n{daemon.log.read_text()[-3000:]}")


def test_a_deployment_waits_until_its_archive_is_active_or_refused(
    cloaca: Cloaca, daemon: Started, tmp_path: Path
) -> None:
    eventually(lambda: f"running, process {daemon.process.pid}" in cloaca("status").stdout, "the daemon", daemon)
    path = tmp_path / "any.cloacina"
    path.write_bytes(archive(CODE, triggers=[declared("quiet")]))

    said = cloaca("deploy", "any.cloacina", "--wait")

    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1].startswith("Ready")
    path.write_bytes(archive(CODE, version="2.0.0"))
    said = cloaca("deploy", "any.cloacina", "--wait")
    assert said.returncode == 1
    assert "package 'demo' was refused: NamesDisagree: " in said.stderr


def test_from_a_copied_archive_to_a_run_and_away_again(
    cloaca: Cloaca, daemon: Started, home: Path, tmp_path: Path
) -> None:
    eventually(lambda: f"running, process {daemon.process.pid}" in cloaca("status").stdout, "the daemon", daemon)
    target = home / "packages" / "demo-1.0.0.cloacina"
    target.write_bytes(archive(CODE, triggers=[declared("quiet")]))
    eventually(lambda: cloaca("get", "ctrig", "-o", "name").stdout, "the trigger", daemon)
    eventually(lambda: "fired" if cloaca("fire", "demo-quiet").returncode == 0 else "", "a trigger to fire", daemon)

    said = cloaca("fire", "demo-quiet", "--key", "a", "--context", '{"file": "a"}', "--wait")
    name = said.stdout.split()[0].partition("/")[2]
    assert (said.returncode, said.stderr) == (0, ""), said
    assert said.stdout.splitlines()[-1].startswith("Completed in ")
    assert cloaca("logs", name).stdout == "working on a\n"
    again = cloaca("fire", "demo-quiet", "--key", "a", "--wait")
    assert (again.returncode, f"deduplicated by run {name} (Completed)" in again.stdout) == (0, True)

    failed = cloaca("run", "package/demo", "--context", '{"fail": true}', "--wait")
    name = failed.stdout.split()[0].partition("/")[2]
    assert failed.returncode == 1
    described = cloaca("describe", "crun", name).stdout
    assert "task 'only' failed: ValueError: asked to fail" in described
    assert "ValueError: asked to fail" in described.partition("Traceback:")[2]

    assert cloaca("suspend", "ctrig", "demo-quiet").stdout == "trigger.cloacina.io/demo-quiet suspended\n"
    trigger = json.loads(cloaca("get", "ctrig", "demo-quiet", "-o", "json").stdout)
    assert trigger["spec"]["suspend"] is True
    target.unlink()
    eventually(lambda: cloaca("get", "all").stderr == "No resources found in default namespace.\n", "the end", daemon)
    assert daemon.stop() == 0
    assert "Daemon:     not running" in cloaca("status").stdout


def test_a_second_daemon_on_the_home_is_refused(cloaca: Cloaca, daemon: Started, home: Path) -> None:
    eventually(lambda: "running, process" in cloaca("status").stdout, "the daemon", daemon)
    said = cloaca("daemon")
    assert said.returncode == 1
    assert said.stderr == (
        f"cloaca daemon: a daemon (process {daemon.process.pid}) runs on {home} already: stop it, or use another "
        "--home\n"
    )


def test_the_options_reach_the_daemon_and_nothing_of_the_command_line_stays_in_it(
    daemon: Started, cloaca: Cloaca
) -> None:
    eventually(lambda: "running, process" in cloaca("status").stdout, "the daemon", daemon)
    command = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes().split(b"\0")
    assert command[-5:-1] == [b"-m", b"cloacina_operator.hosts.daemon", b"--log-level", b"debug"]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        pytest.param(
            ["--log-level", "loud"], 2, "'loud' is not one of 'debug', 'info', 'warning', 'error'", id="usage"
        ),
        pytest.param(["--store", ":memory:"], 1, "':memory:' lives in one process", id="a store in memory"),
    ],
)
def test_a_daemon_that_cannot_start_says_why(words: list[str], code: int, sentence: str, cloaca: Cloaca) -> None:
    said = cloaca("daemon", *words)
    assert (said.returncode, sentence in said.stderr) == (code, True), said.stderr
