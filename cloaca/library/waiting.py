"""What a thread that waits for a run, and the threads that drive it, know of each other."""

from __future__ import annotations

import threading

from cloaca.engine.execute import Execution, Stop
from cloaca.engine.record import Record
from cloaca.library.journal import NewRunJournal


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
