"""Count runs that have ended, and remember up to when, so that the next process counts none of them again.

Prometheus' counters start at zero in each process. What ended while no process ran is counted by the next one; what
the one before has counted is not. The line between the two is the latest end of a run that was counted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from cloaca.resources import WorkflowRun

log = logging.getLogger("cloacina.metrics")


class CountedRuns:
    """Called once for each run that has ended."""

    def __init__(
        self,
        count: Callable[[WorkflowRun], None],
        *,
        until: datetime | None,
        now: Callable[[], datetime],
        keep: Callable[[datetime], None] | None = None,
    ) -> None:
        """``until``: what the process before has left; None: nothing, so runs that have ended before now do not count.
        ``keep`` is called with each new value of it."""
        self._count = count
        self._now = now
        self._keep = keep
        self.until = now() if until is None else until
        if keep is not None:
            keep(self.until)

    def __call__(self, run: WorkflowRun) -> None:
        """Count a run."""
        self._count(run)
        at = run.status.finished_at
        if at is None or at <= self.until:
            return
        self.until = max(self.until, min(at, self._now()))  # a clock that is ahead must not hide later runs
        if self._keep is not None:
            self._keep(self.until)


class CountedFile:
    """The file in the home of a daemon that has it. A file that cannot be used costs no more than its purpose."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._complained = False

    def read(self) -> datetime | None:
        """What the process before has left; None: nothing that can be read."""
        try:
            return parsed(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def write(self, until: datetime) -> None:
        """Keep it for the next process. It survives the death of this one, not that of the machine."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.pwrite(self._descriptor, f"{written(until)}\n".encode(), 0)  # as long as the one before it
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("%s: %s: after a restart runs may be counted twice", self._path, error.strerror)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def written(until: datetime) -> str:
    """As a string of fixed length."""
    return until.astimezone(timezone.utc).isoformat(timespec="microseconds")


def parsed(until: str) -> datetime | None:
    """What ``written`` wrote; None: it is something else."""
    try:
        moment = datetime.fromisoformat(until.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
