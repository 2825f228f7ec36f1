"""What a poller tells whoever measures it. Measures nothing itself."""

from __future__ import annotations

from typing import Protocol

from cloaca.resources.trigger import Tick


class PollObserver(Protocol):
    """Hears of the polls of one package, on the poller's event loop; must return at once and never raise."""

    def began(self, lateness: float) -> None:
        """A poll began ``lateness`` seconds after it was due."""
        ...

    def ticked(self, tick: Tick, *, fires: int, duplicates: int) -> None:
        """A tick ended: ``fires`` runs were made, and ``duplicates`` of its fires had run before."""
        ...

    def store_failed(self) -> None:
        """The store did not answer; the poller tries again."""
        ...


class Measures(Protocol):
    """Measures the pollers of several packages."""

    def of(self, namespace: str, package: str) -> PollObserver:
        """Who hears of this package's polls."""
        ...


class Unobserved:
    """Nobody measures."""

    def began(self, lateness: float) -> None:
        """Nothing."""

    def ticked(self, tick: Tick, *, fires: int, duplicates: int) -> None:
        """Nothing."""

    def store_failed(self) -> None:
        """Nothing."""
