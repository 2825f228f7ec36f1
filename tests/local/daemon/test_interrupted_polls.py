"""A worker that dies while several functions run in it: each is called again, from the state as it stands by then."""

from __future__ import annotations

from pathlib import Path

from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

CODE = """
import os, pathlib, time

FOLDER = pathlib.Path(os.environ["SHARED_FOLDER"])

@cloaca.trigger(name="counts", poll_interval="100ms", allow_concurrent=True)
def counts(state):
    while (number := state.get("number", 0)) < 4:
        state.set("number", number + 1)
        with (FOLDER / "fired").open("a") as fired:
            fired.write(f"{number}\\n")
        yield cloaca.TriggerResult.fire({"number": number})
        if number == 2 and not (FOLDER / "taken-down").exists():
            while not (FOLDER / "neighbour").exists():
                time.sleep(0.01)
            (FOLDER / "taken-down").touch()
            os._exit(3)

@cloaca.trigger(name="neighbour", poll_interval="100ms", allow_concurrent=True)
def neighbour(state):
    if (FOLDER / "taken-down").exists():
        state.set("called again", True)
        return cloaca.TriggerResult.skip()
    (FOLDER / "neighbour").touch()
    time.sleep(600)
"""


async def test_what_was_yielded_before_its_worker_died_is_not_fired_again(daemon: Daemon, tmp_path: Path) -> None:
    daemon.environment["SHARED_FOLDER"] = str(tmp_path)
    triggers = [declared(name, poll_interval="100ms", allow_concurrent=True) for name in ("counts", "neighbour")]
    daemon.deploy(archive(WORKFLOW + CODE, triggers=triggers))
    daemon.start()
    counts = await daemon.trigger("demo-counts", lambda it: it.status.state.get("number") == 4)
    assert (tmp_path / "taken-down").exists()
    assert counts.status.sequence == 4
    assert counts.status.consecutive_errors == 0
    assert (tmp_path / "fired").read_text().split() == ["0", "1", "2", "3"]
    neighbour = await daemon.trigger("demo-neighbour", lambda it: it.status.state.get("called again", False))
    assert neighbour.status.consecutive_errors == 0
