"""A connection between two processes of a simulated machine, as a pair of sockets is one, without the system's help."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any


class End(asyncio.Transport):
    """One end. What is said into it arrives at the other one at once, in the order in which it was said."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._other: End
        self._closed = False
        self._protocol: asyncio.Protocol | None = None
        self._came: list[bytes] = []  # before somebody listened

    def attach(self, protocol: asyncio.Protocol) -> None:
        """Have ``protocol`` hear, in the process that this is called in."""
        self._protocol = protocol
        self._context = copy_context()
        protocol.connection_made(self)
        came, self._came = self._came, []
        for data in came:
            self._arrive(data)
        if self._closed:
            self._lose()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closed:
            self._other._arrive(bytes(data))

    def close(self) -> None:
        for end in (self, self._other):
            if not end._closed:
                end._closed = True
                if end._protocol is not None:
                    end._lose()

    def is_closing(self) -> bool:
        return self._closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def _arrive(self, data: bytes) -> None:
        if self._protocol is None:
            self._came.append(data)
        else:
            self._loop.call_soon(self._protocol.data_received, data, context=self._context)

    def _lose(self) -> None:
        assert self._protocol is not None
        self._loop.call_soon(self._protocol.connection_lost, None, context=self._context)


def pipe(loop: asyncio.AbstractEventLoop) -> tuple[End, End]:
    """Both ends."""
    one, other = End(loop), End(loop)
    one._other, other._other = other, one
    return one, other
