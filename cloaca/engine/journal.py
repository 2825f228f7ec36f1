"""Record a run's status in a store, for as long as this process is the one that may."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import sleep
from typing import TypeVar

from cloaca.errors import CloacaError, Conflict, NotFound, StoreUnavailable
from cloaca.resources.run import RunStatus, WorkflowRun
from cloaca.store.blocking import BlockingStore

log = logging.getLogger("cloaca.engine")

T = TypeVar("T")

PATIENCE = (0.1, 0.3, 1.0, 3.0, *(10.0,) * 6)
"""Seconds between tries while the store is away, a minute in all: what was done is worth more than a restart."""


class RunLost(CloacaError):
    """The run is no longer this process's to write: deleted, ended by someone else, or given to another attempt."""


class StoreJournal:
    """Writes the status of one run; ``run`` is how it was last seen, or made but not yet created.

    Belongs to one thread at a time, which waits.
    """

    def __init__(
        self, store: BlockingStore, run: WorkflowRun, *, created: bool, patience: Sequence[float] = ()
    ) -> None:
        """``patience``: seconds to wait before each further try while the store is away."""
        self._store = store
        self._patience = patience
        self._created = created
        self.run = run

    def write(self, status: RunStatus) -> None:
        """Record ``status``. Raises RunLost when another one has the right to."""
        if not self._created:
            self.run = self._store.create_here(self.run.model_copy(update={"status": status}))
            self._created = True
            return
        self._patiently(lambda: self._write(status))

    def _patiently(self, write: Callable[[], T]) -> T:
        for seconds in self._patience:
            try:
                return write()
            except StoreUnavailable as error:
                log.warning("run %s: the store is away, its progress is kept: %s", self.run.name, error)
            sleep(seconds)
        return write()

    def _write(self, status: RunStatus) -> None:
        while True:
            try:
                self.run = self._store.write_status_here(self.run.model_copy(update={"status": status}))
            except NotFound:
                raise RunLost(f"run {self.run.name!r} was deleted while it ran") from None
            except Conflict:
                if self._is_there(status):
                    return
            else:
                return

    def _is_there(self, status: RunStatus) -> bool:
        """Whether ``status`` was written before, by a try whose answer got lost. Else somebody changed the object: its
        spec (then we write again), or its status (then it is not ours)."""
        seen = self._store.get_here(WorkflowRun, self.run.name, self.run.metadata.namespace)
        if seen is None or seen.metadata.uid != self.run.metadata.uid:
            raise RunLost(f"run {self.run.name!r} was deleted while it ran")
        if seen.status == status:
            self.run = seen
            return True
        if seen.status.phase.finished:
            raise RunLost(f"run {self.run.name!r} was ended by someone else: {seen.status.phase.value}")
        if seen.status.attempt != self.run.status.attempt:
            raise RunLost(f"run {self.run.name!r} was given to attempt {seen.status.attempt}")
        if seen.status != self.run.status:
            raise RunLost(f"run {self.run.name!r} was written by someone else: what this process resumed from is old")
        self.run = seen
        return False
