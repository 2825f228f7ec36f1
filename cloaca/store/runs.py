"""What the process of a run needs of a store: the run as it stands, and a place for its status. Knows no other kind."""

from __future__ import annotations

from typing import Protocol

from cloaca.resources.recorded import RecordedRun
from cloaca.resources.ref import Ref


class RunStore(Protocol):
    """Where runs are recorded. What ends in ``_here`` returns when done: not for a loop's thread.

    Every method may raise StoreUnavailable, and Invalid for a run that another version of this program stored.
    """

    @property
    def waits(self) -> bool:
        """Whether those that end in ``_here`` wait for another process, such as a server."""
        ...

    def run_here(self, name: str, namespace: str) -> RecordedRun | None:
        """The run as it stands, or None."""
        ...

    def record_here(self, ref: Ref, uid: str, version: str, status: str) -> str:
        """Write ``status``, as JSON, for the run that stood at the resource version ``version``; returns the new one.

        Raises Conflict where ``version`` is not the current one, NotFound where the run is gone or another one by now.
        """
        ...

    def close_here(self) -> None:
        """Let go of everything. Idempotent."""
        ...
