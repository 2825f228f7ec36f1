"""Read the run while the process loads what executes it: the server's time to answer costs nothing then.

What is read may be old by the time it is claimed. That is what the condition of a claim is for: it fails then, and the
run is looked at anew.
"""

from __future__ import annotations

import threading

from cloaca.errors import CloacaError
from cloaca.store import RunStore, open_runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloaca.resources.recorded import RecordedRun


class Ahead:
    """A look at one run, under way in a thread of its own."""

    def __init__(self, url: str, name: str, namespace: str) -> None:
        self._where = (url, name, namespace)
        self._found: tuple[RunStore, RecordedRun | None] | None = None
        self._looking = threading.Thread(target=self._look, name="ahead", daemon=True)
        self._looking.start()

    def _look(self) -> None:
        url, name, namespace = self._where
        try:
            store = open_runs(url)
            self._found = store, store.run_here(name, namespace)
        except CloacaError:
            return  # who looks again learns of it, and knows how long to be patient

    def found(self) -> tuple[RunStore, RecordedRun | None] | None:
        """The store and the run that stands there; None: the store could not be had. Waits for the answer."""
        self._looking.join()
        return self._found
