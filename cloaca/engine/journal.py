"""Record a run's status in a store, for as long as this process is the one that may."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import sleep

from cloaca.errors import Conflict, NotFound, RunLost, StoreUnavailable
from cloaca.resources.run import RunStatus, WorkflowRun
from cloaca.store.blocking import BlockingStore, Status

log = logging.getLogger("cloaca.engine")

PATIENCE = (0.1, 0.3, 1.0, 3.0, *(10.0,) * 6)
"""Seconds between tries while the store is away, a minute in all: what was done is worth more than a restart."""


@dataclass(frozen=True)
class Plain:
    """A status whose JSON is the store's to make."""

    status: RunStatus
    text: str | None = None


class StoreJournal:
    """Writes the status of one run, which was seen last as ``run``, or was made but not yet created.

    Belongs to one thread at a time, which waits.
    """

    def __init__(
        self, store: BlockingStore, run: WorkflowRun, *, created: bool, patience: Sequence[float] = ()
    ) -> None:
        """``patience``: seconds to wait before each further try while the store is away."""
        self._store = store
        self._patience = patience
        self._created = created
        self._run = run  # whose metadata and spec count, but for
        self._version = run.metadata.resource_version
        self._last: RunStatus | str = run.status  # as a status or as its JSON
        self.waits = store.waits

    @property
    def run(self) -> WorkflowRun:
        """The run as it stands, as far as this process knows."""
        last = self._last
        status = RunStatus.model_validate_json(last) if isinstance(last, str) else last
        metadata = self._run.metadata.model_copy(update={"resource_version": self._version})
        return self._run.model_copy(update={"metadata": metadata, "status": status})

    @property
    def generation(self) -> int:
        """The run's."""
        return self._run.metadata.generation

    @property
    def uid(self) -> str:
        """The run's; empty: it was not created."""
        return self._run.metadata.uid

    def write(self, record: Status) -> None:
        """Record it. Raises RunLost when another one has the right to."""
        if record.text is None:
            record = Plain(record.status)
        if not self._created:
            self._run = self._store.create_here(self._run, record)
            self._version = self._run.metadata.resource_version
            self._created = True
        else:
            self._write_patiently(record)
        self._last = record.text or record.status

    def _write_patiently(self, status: Status) -> None:
        for seconds in self._patience:
            try:
                return self._write(status)
            except StoreUnavailable as error:
                log.warning("run %s: the store is away, its progress is kept: %s", self._run.name, error)
            sleep(seconds)
        return self._write(status)

    def _write(self, status: Status) -> None:
        while True:
            try:
                self._version = self._store.write_status_here(self._run, self._version, status)
            except NotFound:
                raise RunLost(f"run {self._run.name!r} was deleted while it ran") from None
            except Conflict:
                if self._is_there(status):
                    return
            else:
                return

    def _is_there(self, status: Status) -> bool:
        """Whether ``status`` was written before, by a try whose answer got lost. Else somebody changed the object: its
        spec (then we write again), or its status (then it is not ours)."""
        mine = self.run
        seen = self._store.get_here(WorkflowRun, mine.name, mine.metadata.namespace)
        if seen is None or seen.metadata.uid != mine.metadata.uid:
            raise RunLost(f"run {mine.name!r} was deleted while it ran")
        if seen.status == status.status:
            self._see(seen)
            return True
        if seen.status.phase.finished:
            raise RunLost(f"run {mine.name!r} was ended by someone else: {seen.status.phase.value}")
        if seen.status.attempt != mine.status.attempt:
            raise RunLost(f"run {mine.name!r} was given to attempt {seen.status.attempt}")
        if seen.status != mine.status:
            raise RunLost(f"run {mine.name!r} was written by someone else: what this process resumed from is old")
        self._see(seen)
        return False

    def _see(self, run: WorkflowRun) -> None:
        self._run, self._version = run, run.metadata.resource_version
