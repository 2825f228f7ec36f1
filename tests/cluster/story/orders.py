"""The package of the story: files in an inbox fire runs by key, and each run writes down what it does.

Its data is a volume: ``inbox/NAME`` fires, ``hold/NAME`` keeps the run of NAME in its second task, ``effects`` has one
line for each thing that was done, which is printed, too. The version of the package is in ``VERSION``.
"""

from __future__ import annotations

from typing import Any

from builders import archive, declared

CODE = """
import os, pathlib, time
import cloaca

VERSION = "{version}"
DATA = pathlib.Path("/data")

def note(what):
    with open(DATA / "effects", "a") as file:  # one write: lines of several pods do not mix
        file.write(f"{{what}} {{VERSION}}\\n")
    print(what, VERSION)

with cloaca.WorkflowBuilder("orders") as builder:
    @cloaca.task(id="first", retry_attempts=0)
    def first(context):
        note(f"first {{context.get('file')}}")

    @cloaca.task(id="second", dependencies=["first"], retry_attempts=0)
    def second(context):
        name = context.get("file")
        note(f"begun {{name}}")
        while (DATA / "hold" / name).exists():
            time.sleep(0.05)
        if name.startswith("hungry"):
            bytearray(1 << 30)
        note(f"ended {{name}}")

@cloaca.trigger(name="inbox", poll_interval="300ms", allow_concurrent=True)
def inbox():
    names = sorted(os.listdir(DATA / "inbox"))
    return [cloaca.TriggerResult.fire({{"file": name}}, key=name) for name in names]
"""


def packed(version: str = "1.0.0") -> bytes:
    """The archive."""
    tasks: list[dict[str, Any]] = [
        {"id": "first", "function": "orders:first", "dependencies": []},
        {"id": "second", "function": "orders:second", "dependencies": ["first"]},
    ]
    return archive(
        CODE.format(version=version),
        name="orders",
        version=version,
        tasks=tasks,
        triggers=[declared("inbox", "orders", poll_interval="300ms", allow_concurrent=True)],
    )
