"""Record a run's status in a store, for as long as this process is the one that may."""

from __future__ import annotations

from cloaca.errors import CloacaError, Conflict, NotFound
from cloaca.resources.run import RunStatus, WorkflowRun
from cloaca.store.blocking import BlockingStore


class RunLost(CloacaError):
    """The run is no longer this process's to write: deleted, ended by someone else, or given to another attempt."""


class StoreJournal:
    """Writes the status of one run; ``run`` is how it was last seen, or made but not yet created.

    Belongs to one thread at a time, which waits.
    """

    def __init__(self, store: BlockingStore, run: WorkflowRun, *, created: bool) -> None:
        self._store = store
        self._created = created
        self.run = run

    def write(self, status: RunStatus) -> None:
        """Record ``status``. Raises RunLost when another one has the right to."""
        if not self._created:
            self.run = self._store.create_here(self.run.model_copy(update={"status": status}))
            self._created = True
            return
        while True:
            try:
                self.run = self._store.write_status_here(self.run.model_copy(update={"status": status}))
            except NotFound:
                raise RunLost(f"run {self.run.name!r} was deleted while it ran") from None
            except Conflict:
                self._look_again()
            else:
                return

    def _look_again(self) -> None:
        """Somebody changed the object: its spec (then we write again), or its status (then it is not ours)."""
        seen = self._store.get_here(WorkflowRun, self.run.name, self.run.metadata.namespace)
        if seen is None or seen.metadata.uid != self.run.metadata.uid:
            raise RunLost(f"run {self.run.name!r} was deleted while it ran")
        if seen.status.phase.finished:
            raise RunLost(f"run {self.run.name!r} was ended by someone else: {seen.status.phase.value}")
        if seen.status.attempt != self.run.status.attempt:
            raise RunLost(f"run {self.run.name!r} was given to attempt {seen.status.attempt}")
        if seen.status != self.run.status:
            raise RunLost(f"run {self.run.name!r} was written by someone else: what this process resumed from is old")
        self.run = seen
