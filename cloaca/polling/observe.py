"""What a poller tells whoever measures it. Measures nothing itself."""

from __future__ import annotations

from typing import Protocol

from cloaca.resources.trigger import Tick


class PollObserver(Protocol):
    """Called on the poller's event loop; must return at once and never raise."""

    def began(self, package: str, lateness: float) -> None:
        """A poll began ``lateness`` seconds after it was due."""
        ...

    def ticked(self, package: str, tick: Tick, *, fires: int, duplicates: int) -> None:
        """A tick ended: ``fires`` runs were made, and ``duplicates`` of its fires had run before."""
        ...

    def store_failed(self, package: str) -> None:
        """The store did not answer; the poller tries again."""
        ...


class Unobserved:
    """Nobody measures."""

    def began(self, package: str, lateness: float) -> None:
        """Nothing."""

    def ticked(self, package: str, tick: Tick, *, fires: int, duplicates: int) -> None:
        """Nothing."""

    def store_failed(self, package: str) -> None:
        """Nothing."""
