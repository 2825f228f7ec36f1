"""Record a run that is made by its first record: what nobody has begun stands nowhere."""

from __future__ import annotations

from cloaca.engine.journal import StoreJournal
from cloaca.engine.record import Record
from cloaca.resources.recorded import RecordedRun, RecordedStatus
from cloaca.resources.run import WorkflowRun
from cloaca.store.blocking import BlockingStore

_NOT_READ = RecordedStatus()


class NewRunJournal:
    """Makes ``run`` with its first record. Belongs to one thread at a time, which waits."""

    def __init__(self, store: BlockingStore, run: WorkflowRun) -> None:
        self._store = store
        self._run = run
        self._journal: StoreJournal | None = None  # None: it is not made yet
        self.waits = store.waits
        self.uid = ""
        """The run's; empty: it was not made."""

    def write(self, record: Record) -> None:
        """Record it. Raises RunLost when another one has the right to, AlreadyExists where the name is taken."""
        if self._journal is not None:
            self._journal.write(record)
            return
        status = record.text()
        made = self._store.create_here(self._run, status)
        metadata, spec = made.metadata, made.spec
        run = RecordedRun(
            metadata.name,
            metadata.namespace,
            metadata.uid,
            metadata.resource_version,
            metadata.generation,
            spec.workflow,
            spec.context,
            spec.cancel,
            spec.active_deadline_seconds,
            _NOT_READ,
        )
        self._journal = StoreJournal.of_new(self._store, run, status)
        self.uid = metadata.uid
