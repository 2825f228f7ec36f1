"""Import a package in a process of its own and hear what it registered. This process runs none of its code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cloaca.errors import ImportCrashed, ImportTimedOut, LoadError
from cloaca.packages.inventory import Inventory, inventory_of
from cloaca.packages.load import load_package


def inspect_package(root: Path, entry_module: str, timeout: float) -> Inventory:
    """What importing ``entry_module`` from ``root`` registers.

    What the package prints goes to standard error. Raises LoadError where the import fails, takes longer than
    ``timeout`` seconds or ends the process; the process and all that it started are gone then.
    """
    with tempfile.TemporaryFile() as answers:  # a pipe would hold 64 KiB, and the writer up
        process = subprocess.Popen(
            [sys.executable, "-m", "cloaca.packages.inspection", str(root), entry_module, str(answers.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if _has_descriptor() else subprocess.DEVNULL,
            pass_fds=(answers.fileno(),),
            start_new_session=True,  # a group that can be ended whole
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ImportTimedOut(f"the import took longer than {timeout:g} s and was stopped") from None
        finally:
            _end(process)
        answers.seek(0)
        line = answers.read()
    if not line:
        raise ImportCrashed(f"the import ended its process ({_how(code)}) without an answer")
    answer = json.loads(line)
    if "failed" in answer:
        raise LoadError(answer["failed"], answer["traceback"])
    return Inventory.from_json(answer["loaded"])


def _has_descriptor() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, ValueError):
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.Signals(-code).name})"


def main(root: str, entry_module: str, descriptor: str) -> None:
    """In the process of its own: import, answer, and leave without waiting for threads of the package."""
    answer: dict[str, Any]
    try:
        answer = {"loaded": inventory_of(load_package(Path(root), entry_module)).to_json()}
    except LoadError as error:
        answer = {"failed": str(error), "traceback": error.traceback_text}
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(int(descriptor), "wb") as answers:
        answers.write(json.dumps(answer).encode())
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
