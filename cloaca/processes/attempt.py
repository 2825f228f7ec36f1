"""The one process of a run's pod: import the mounted package and execute one attempt of one WorkflowRun."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from cloaca.errors import PackageError, StoreError
from cloaca.packages.load import load_package
from cloaca.processes.mounted import arguments, mounted, obey_at_once, say_last
from cloaca.processes.swift import importing


def main(given: Sequence[str] | None = None) -> int:
    """Returns one of the exit codes of ``exits``, or 1 where the package or the store cannot be had."""
    signal.signal(signal.SIGTERM, obey_at_once)
    parser = arguments("Execute one attempt of a WorkflowRun.")
    parser.add_argument("--store", required=True, help="URL of the store that has the run")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--run", required=True, help="name of the WorkflowRun")
    parser.add_argument("--uid", required=True, help="its uid: another run of that name is not meant")
    parser.add_argument("--attempt", type=int, required=True, help="which attempt this is, from 1")
    asked = parser.parse_args(given)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper: nobody replaced it yet
    with importing():
        from cloaca.processes.run import run

        if asked.store.startswith("kubernetes:"):  # else what opens the store loads it
            import_module("cloaca.store.kubernetes.runs")
    try:
        package = mounted(asked.archive, asked.digest, asked.scratch)
        registry = load_package(package.root, package.entry_module)
    except PackageError as error:
        return _gave_up(f"{error}\n{getattr(error, 'traceback_text', '')}".rstrip())

    job = {
        "store": asked.store,
        "namespace": asked.namespace,
        "name": asked.run,
        "uid": asked.uid,
        "attempt": asked.attempt,
        "manifest": str(package.manifest),
        "pod": os.environ.get("CLOACA_POD", str(os.getpid())),
    }
    try:
        return run(job, registry)
    except StoreError as error:
        return _gave_up(str(error))


def _gave_up(words: str) -> int:
    print(words, file=sys.stderr)
    say_last(words)
    return 1


def leave(code: int) -> None:
    """End this process without waiting for threads of user code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
