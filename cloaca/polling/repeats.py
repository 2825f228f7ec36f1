"""Which keys have fired before, as far as is known: who finds the same things at each call asks the store once."""

from __future__ import annotations

MOST = 10_000  # names; the oldest go first


class Repeats:
    """Names of runs that are there, or whose keys are in the ledger. What is forgotten is only asked for again."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._names: dict[str, None] = {}  # in order of their coming
        self._forgotten = 0

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @property
    def mark(self) -> int:
        """Moves whenever something is forgotten: take it before the store is asked."""
        return self._forgotten

    def add(self, name: str, mark: int) -> None:
        """``name`` was there when the store was asked, after ``mark``; if a deletion came meanwhile, it may not be."""
        if mark != self._forgotten:
            return
        self._names[name] = None
        if len(self._names) > self._most:
            del self._names[next(iter(self._names))]

    def forget(self, name: str) -> None:
        """That run was deleted, or is another one's."""
        self._forgotten += 1
        self._names.pop(name, None)

    def clear(self) -> None:
        """Deletions may have been missed."""
        self._forgotten += 1
        self._names.clear()
