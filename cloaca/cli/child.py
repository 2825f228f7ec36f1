"""The process in which ``cloaca poll`` and ``cloaca run`` execute user code: load a package, then poll it or run it.

Two lines of JSON come on standard input: which package, and, once it is loaded, what to do with it. The answer to the
first goes to what was standard output; what user code prints goes to standard error. The process ends when its standard
input is closed, whatever user code does.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn, TextIO

from cloaca.authoring.registry import Registry
from cloaca.packages.inspection import import_answer

THREADS = 256
TASKS_AT_ONCE = 4


def main() -> None:
    """Load the package, say what it registered, and do what is asked then."""
    package = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper: nobody replaced it yet
    registry, told = import_answer(Path(package["root"]), package["entry_module"])
    _answer(answers, told)
    if registry is None:
        _leave(1)
    job = json.loads(sys.stdin.readline() or "null")
    if job is None:
        _leave(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if job["op"] == "poll":
        from cloaca.polling.worker import work

        work(socket.socket(fileno=job["channel"]), registry.triggers)
    asyncio.run(_run(job, registry))
    _leave(0)


def _answer(answers: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=answers, flush=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _leave(code: int) -> NoReturn:
    """Without waiting for threads of user code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _run(job: dict[str, Any], registry: Registry) -> None:
    """Execute the run that stands in the store."""
    from cloaca.engine.crew import Crew
    from cloaca.engine.execute import Stop, Workshop, execute
    from cloaca.engine.journal import StoreJournal
    from cloaca.engine.slots import Slots
    from cloaca.engine.timers import Timers
    from cloaca.resources.ref import DEFAULT_NAMESPACE
    from cloaca.store import open_runs

    store = open_runs(job["store"])
    seen = store.run_here(job["name"], DEFAULT_NAMESPACE)
    if seen is None:
        raise RuntimeError(f"run {job['name']!r} is not in the store {job['store']}")
    loop = asyncio.get_running_loop()
    workshop = Workshop(crew=Crew(THREADS), loop=loop, timers=Timers(loop), slots=Slots(TASKS_AT_ONCE))
    claimed = seen.status._replace(attempt=1, pod_name=str(os.getpid()), started_at=datetime.now(timezone.utc))
    journal = StoreJournal(store, seen)
    await execute(registry.workflows[seen.workflow], seen.context, claimed, journal, workshop, Stop())
    store.close_here()


if __name__ == "__main__":
    main()
