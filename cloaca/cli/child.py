"""The process in which ``cloaca poll`` and ``cloaca run`` execute user code: load a package, then poll it or run it.

Two lines of JSON come on standard input: which package, and, once it is loaded, what to do with it. The answer to the
first goes to what was standard output; what user code prints goes to standard error. The process ends, with its process
group, when what was its standard input is closed, whatever user code does.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextvars import copy_context
from datetime import datetime, timezone
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

from cloaca.authoring.registry import Registry
from cloaca.packages.inspection import import_answer
from cloaca.packages.process import end_with, leave, open_streams, take_input

_IMPORT_GRACE = 1.0  # seconds that exit handlers get where nothing was executed
THREADS = 256
TASKS_AT_ONCE = 4


def main() -> None:
    """Load the package, say what it registered, and do what is asked then."""
    open_streams(encoding=None)
    jobs = take_input()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines = _Lines()
    end_with(jobs, lines.hear)
    package = lines.next()
    registry, told = import_answer(Path(package["root"]), package["entry_module"])
    _answer(answers, told)
    answers.close()
    if registry is None:
        leave(1, _IMPORT_GRACE)
    job = lines.next()
    if job["op"] == "poll":
        from cloaca.polling.worker import work

        work(socket.socket(fileno=job["channel"]), registry.triggers)
    asyncio.run(_run(job, registry))
    leave(0)


class _Lines:
    """The lines of JSON that the parent sends."""

    def __init__(self) -> None:
        self._pieces: SimpleQueue[bytes] = SimpleQueue()
        self._buffer = b""

    def hear(self, data: bytes) -> None:
        """A piece has come."""
        self._pieces.put(data)

    def next(self) -> dict[str, Any]:
        """The next line. Waits for it; where none comes any more, this process ends meanwhile."""
        while b"\n" not in self._buffer:
            self._buffer += self._pieces.get()
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


def _answer(answers: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=answers, flush=True)


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
    workshop = Workshop(
        crew=Crew(THREADS, context=copy_context(), whole_process=True),
        loop=loop,
        timers=Timers(loop),
        slots=Slots(TASKS_AT_ONCE),
    )
    claimed = seen.status._replace(attempt=1, pod_name=str(os.getpid()), started_at=datetime.now(timezone.utc))
    journal = StoreJournal(store, seen)
    await execute(registry.workflows[seen.workflow], seen.context, claimed, journal, workshop, Stop())
    store.close_here()


if __name__ == "__main__":
    main()
