"""How many tasks run at once: slots, which are taken and given back by whichever thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Slots:
    """A number of slots. Who waits for one gets it in the order of asking. Thread-safe; nothing here ever blocks."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._waiting: dict[Callable[[], None], None] = {}  # ordered

    @property
    def free(self) -> int:
        """How many may be taken."""
        return self._free

    def take(self, granted: Callable[[], None] | None = None) -> bool:
        """Whether a slot was taken now. If not, ``granted`` is called once one was taken for it, in any thread."""
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return True
            if granted is not None:
                self._waiting[granted] = None
            return False

    def withdraw(self, granted: Callable[[], None]) -> bool:
        """Wait no longer. False: ``granted`` was or will be called all the same, and has a slot to give back."""
        with self._lock:
            return self._waiting.pop(granted, self) is None

    def give(self) -> None:
        """Give one back."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            granted = next(iter(self._waiting))
            del self._waiting[granted]
        granted()
