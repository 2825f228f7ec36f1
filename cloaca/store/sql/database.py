"""What the store needs of a SQL database. One implementation each; statements, rows and meaning are shared.

A database brings its own schema files, its own way to let writers take turns and its own way to hear of their writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Cursor(Protocol):
    """What a statement gave."""

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All the rows that are left."""
        ...


class Connection(Protocol):
    """Where a write's statements run, inside its transaction."""

    def execute(self, statement: str, parameters: Mapping[str, Any], /) -> Cursor:
        """Run one statement, whose parameters are written ``:name``."""
        ...

    def give_out(self, statement: str, parameters: Mapping[str, Any], /) -> int | None:
        """Run one statement that gives out a resource version: which one; None: it found nothing to change."""
        ...


Work = Callable[[Connection], T]
"""Runs inside a transaction, perhaps together with others', perhaps twice: only what it writes there may last.

What it raises as StoreError it raises before its first write, so that the others' writes stand.
"""


class OneStatement:
    """A work that is one statement, which gives out a resource version: it may be a transaction by itself."""

    __slots__ = ("_parameters", "_statement")

    def __init__(self, statement: str, parameters: Mapping[str, Any]) -> None:
        self._statement = statement
        self._parameters = parameters

    def __call__(self, connection: Connection, /) -> int | None:
        return connection.give_out(self._statement, self._parameters)


class Database(Protocol):
    """Thread-safe; may be used from several event loops. Every method may raise StoreUnavailable."""

    @property
    def statements(self) -> Mapping[str, str]:
        """The statements, by name, that this database says in its own way."""
        ...

    @property
    def waits(self) -> bool:
        """Whether a call waits for a server."""
        ...

    async def read(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """The rows as last committed, by whomever."""
        ...

    def read_here(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """As ``read``, for a thread that may wait."""
        ...

    async def write(self, work: Work[T]) -> T:
        """What ``work`` returns, once it is committed. Raises what it raises."""
        ...

    def write_here(self, work: Work[T]) -> T:
        """As ``write``, for a thread that may wait."""
        ...

    def subscribe(self) -> asyncio.Event:
        """An event of the running loop that is set whenever something may have been committed, by whomever."""
        ...

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Set it no more. Called in its loop."""
        ...

    async def close(self) -> None:
        """Let go of everything; a call that is under way ends first. Idempotent."""
        ...

    def close_here(self) -> None:
        """As ``close``, for a thread that may wait."""
        ...
