"""Record a run's status in a store, for as long as this process is the one that may."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from time import sleep
from typing import TypeVar

from cloaca.engine.log import Log
from cloaca.engine.record import Record
from cloaca.errors import Conflict, NotFound, RunLost, StoreUnavailable
from cloaca.resources.recorded import RecordedRun, RecordedStatus, read_status
from cloaca.store.runs import RunStore

log = Log("cloaca.engine")

T = TypeVar("T")

PATIENCE = (0.1, 0.3, 1.0, 3.0, *(10.0,) * 6)
"""Seconds between tries while the store is away, a minute in all: what was done is worth more than a restart."""


def patiently(ask: Callable[[], T], patience: Sequence[float], waits: str) -> T:
    """What ``ask`` answers, asked again after each of the pauses of ``patience`` while the store is away. Raises
    StoreUnavailable after the last. ``waits`` says meanwhile who waits for what."""
    for seconds in patience:
        try:
            return ask()
        except StoreUnavailable as error:
            log.warning("the store is away, %s: %s", waits, error)
        sleep(seconds)
    return ask()


class StoreJournal:
    """Writes the status of one run, which was seen last as ``run``. Belongs to one thread at a time, which waits."""

    def __init__(self, store: RunStore, run: RecordedRun, *, patience: Sequence[float] = ()) -> None:
        """``patience``: seconds to wait before each further try while the store is away."""
        self._store = store
        self._patience = patience
        self._run = run
        self._version = run.version
        self._last: RecordedStatus | str = run.status  # as a status or as its JSON
        self.conditions = run.status.conditions  # as they were recorded last
        self.waits = store.waits

    @classmethod
    def of_new(cls, store: RunStore, run: RecordedRun, status: str) -> StoreJournal:
        """Of a run that was made with a status of which this is the JSON."""
        journal = cls(store, run)
        journal._last = status
        return journal

    @property
    def generation(self) -> int:
        """The run's."""
        return self._run.generation

    def write(self, record: Record) -> None:
        """Record it. Raises RunLost when another one has the right to."""
        self.write_text(record.text())

    def write_text(self, status: str) -> None:
        """Record the status of which this is the JSON. As ``write``."""
        patiently(lambda: self._write(status), self._patience, f"the progress of run {self._run.name} is kept")

    def _write(self, status: str) -> None:
        while True:
            try:
                self._version = self._store.record_here(self._run.ref, self._run.uid, self._version, status)
            except NotFound:
                raise RunLost(f"run {self._run.name!r} was deleted while it ran") from None
            except Conflict:
                if not self._is_there(status):
                    continue
            self._last = status
            return

    def _is_there(self, status: str) -> bool:
        """Whether ``status`` was written before, by a try whose answer got lost. Else somebody changed the object: its
        spec (then we write again), or its status (then it is not ours)."""
        mine = read_status(json.loads(self._last)) if isinstance(self._last, str) else self._last
        run, seen = self._run, self._store.run_here(self._run.name, self._run.namespace)
        if seen is None or seen.uid != run.uid:
            raise RunLost(f"run {run.name!r} was deleted while it ran")
        if seen.status == read_status(json.loads(status)):
            self._see(seen)
            return True
        if seen.status.phase.finished:
            raise RunLost(f"run {run.name!r} was ended by someone else: {seen.status.phase.value}")
        if seen.status.attempt != mine.attempt:
            raise RunLost(f"run {run.name!r} was given to attempt {seen.status.attempt}")
        if seen.status != mine:
            raise RunLost(f"run {run.name!r} was written by someone else: what this process resumed from is old")
        self._see(seen)
        return False

    def _see(self, run: RecordedRun) -> None:
        self._run, self._version, self.conditions = run, run.version, run.status.conditions
