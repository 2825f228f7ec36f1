"""What a thread that waits for a run, and the threads that drive it, know of each other."""

from __future__ import annotations

import logging
import threading

from cloaca.engine.execute import Execution, Stop
from cloaca.engine.record import Record
from cloaca.library.journal import NewRunJournal

log = logging.getLogger("cloaca.library")

_STARVED = 10.0  # seconds without a slot after which a thread that belongs to no task says what may be wrong


class Waiting:
    """A run of whose end threads wait: a signal interrupts the wait."""

    def __init__(self) -> None:
        self.stop = Stop()  # what those who wait may ask for
        self.error: BaseException | None = None  # why it did not even begin
        self._run: tuple[Execution, NewRunJournal] | None = None  # None: it did not begin yet
        self._open = threading.Lock()
        self._open.acquire()

    def begun(self, execution: Execution, journal: NewRunJournal) -> None:
        """It begins."""
        self._run = execution, journal

    def tell(self) -> None:
        """It has ended."""
        self._open.release()

    def wait(self, seconds: float = -1) -> bool:
        """Return True once it has ended, or False after ``seconds``; negative: however long it takes."""
        if not self._open.acquire(timeout=seconds):
            return False
        self._open.release()
        return True

    @property
    def starves(self) -> bool:
        """Whether tasks of it wait for a slot."""
        return self._run is not None and self._run[0].waits_for_slot

    def result(self) -> tuple[Record, str]:
        """What was written last, and the run's uid. Raises what kept it from its end."""
        if self._run is None:
            raise self.error or RuntimeError("the run is not over")
        execution, journal = self._run
        return execution.result(), journal.uid


def warn_if_starving(waiting: Waiting, workflow: str, slots: int) -> None:
    """Wait for a while, in a thread that a task may have started, and warn if the run gets no slot meanwhile."""
    if waiting.wait(_STARVED) or not waiting.starves:
        return
    log.warning(
        "workflow %r: tasks have waited %g s for one of %d slots (max_concurrent_tasks). If a task started the thread "
        "that calls execute and waits for it, start it with contextvars.copy_context().run: only so does the task give "
        "its slot to the run",
        *(workflow, _STARVED, slots),
    )
