"""Import an unpacked package in a process of its own, and say what it registered. Runs nothing of it in this one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from cloaca.authoring.registry import Registry
from cloaca.errors import ImportCrashed, ImportTimedOut, LoadError
from cloaca.packages.held import held, refuse_held
from cloaca.packages.inventory import Inventory, inventory_of
from cloaca.packages.load import load_package
from cloaca.packages.process import end_with, leave, open_descriptors, open_streams, python_command, take_input
from cloaca.packages.scratch import scratch_folder

IMPORT_TIMEOUT = 60.0  # seconds
_EXIT_GRACE = 1.0  # seconds that exit handlers get after an import: there was no run whose results they could write


def inspect_package(root: Path, entry_module: str, timeout: float = IMPORT_TIMEOUT) -> Inventory:
    """What importing ``entry_module`` from ``root`` registers. What it prints goes to standard error.

    The process is gone at the end, with all that it started. Raises LoadError: ImportTimedOut after ``timeout``
    seconds, ImportCrashed where the import ended its process.
    """
    with scratch_folder() as folder:
        answer = folder / "answer.json"  # not a pipe: what user code leaves running could keep that one open
        command = [*python_command("cloaca.packages.inspection"), str(root), entry_module, str(answer)]
        open_descriptors()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=_standard_error(), start_new_session=True)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise timed_out(timeout) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if not answer.exists():
            if _partial(answer).exists():  # it had an answer, and no room to write it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            raise crashed(code)
        return inventory_in(json.loads(answer.read_text(encoding="utf-8")))


def _partial(answer: Path) -> Path:
    """Where an answer is until it is whole."""
    return answer.with_name(f"{answer.name}.partial")


def _standard_error() -> int:
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # replaced by something without a descriptor, or closed
        return subprocess.DEVNULL


def import_answer(root: Path, entry_module: str) -> tuple[Registry | None, dict[str, Any]]:
    """(registry or None, what to tell the process that asked). For the process that belongs to the package alone."""
    before = held()
    try:
        registry = load_package(root, entry_module)
        inventory = inventory_of(registry)
        refuse_held(entry_module, before)
    except LoadError as error:
        return None, {"failed": str(error), "traceback": error.traceback_text}
    return registry, {"loaded": inventory.to_json()}


def inventory_in(answer: dict[str, Any]) -> Inventory:
    """The inventory in an answer of ``import_answer``. Raises LoadError where the import failed."""
    if "failed" in answer:
        raise LoadError(answer["failed"], answer["traceback"])
    return Inventory.from_json(answer["loaded"])


def timed_out(timeout: float) -> ImportTimedOut:
    """The error of an import that had ``timeout`` seconds."""
    return ImportTimedOut(f"the import took longer than {timeout:g} s and was stopped")


def crashed(code: int) -> ImportCrashed:
    """The error of an import whose process ended with ``code`` as ``subprocess`` gives it."""
    return ImportCrashed(f"the import ended its process ({how_it_ended(code)}) without an answer")


def how_it_ended(code: int) -> str:
    """``exit code 3``, ``signal 9 (SIGKILL)``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def _main(root: str, entry_module: str, answer: str) -> None:
    open_streams(encoding=None)
    end_with(take_input())
    _, told = import_answer(Path(root), entry_module)
    partial = _partial(Path(answer))
    with contextlib.suppress(OSError):  # whoever waits finds half an answer, and knows
        partial.write_text(json.dumps(told), encoding="utf-8")
        partial.rename(answer)
    leave(0, _EXIT_GRACE)


if __name__ == "__main__":
    _main(*sys.argv[1:])
