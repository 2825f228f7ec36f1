"""Answer scrapes of one process: ``GET /metrics``, to a few at a time, each in little time. Counts nothing itself.

Whoever can reach the port may ask as often as it likes, so no caller gets more than a place and some seconds of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

PATH = "/metrics"
PLACES = 8  # connections at once; one more is closed unanswered
SECONDS = 5.0  # that one may last
LONGEST = 8 * 1024  # bytes of a request


class Scrapes:
    """One port with the figures of a registry, and those of the process. Belongs to the event loop that starts it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        ProcessCollector(registry=registry)
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self, port: int, host: str | None = None) -> None:
        """Listen; ``host`` None: on all addresses. Raises OSError where the port is taken."""
        self._server = await asyncio.start_server(self._connected, host, port, limit=LONGEST)

    async def close(self) -> None:
        """Stop listening, and let go of whoever is connected."""
        if self._server is not None:
            self._server.close()
        for answering in self._answering:
            answering.cancel()
        if self._answering:
            await asyncio.wait(self._answering)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._answering) >= PLACES:
            writer.transport.abort()
            return
        answering = asyncio.ensure_future(self._within_bounds(reader, writer))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)

    async def _within_bounds(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.wait_for(self._answer(reader, writer), SECONDS)
        except (OSError, asyncio.TimeoutError, h11.RemoteProtocolError):
            return  # whoever asked learns of it by the end of the connection
        finally:
            writer.transport.abort()  # what was to be sent is sent by now

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST)
        while (asked := talk.next_event()) is h11.NEED_DATA:
            talk.receive_data(await reader.read(LONGEST))
        if not isinstance(asked, h11.Request):
            return
        status, kind, body = self._page(asked)
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Connection", "close")]
        events: list[Any] = [h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()]
        writer.transport.set_write_buffer_limits(0)  # drained is sent, to the last byte
        writer.write(b"".join(talk.send(event) or b"" for event in events))
        await writer.drain()
        writer.write_eof()
        while await reader.read(LONGEST):  # a connection that ends while something of it is unread is reset
            continue

    def _page(self, asked: h11.Request) -> tuple[int, str, bytes]:
        """Status, content type and text."""
        if asked.method != b"GET":
            return 405, "text/plain", b""  # the answer to a HEAD has no text
        if asked.target.split(b"?")[0] != PATH.encode():
            return 404, "text/plain", f"there is {PATH}, and nothing else\n".encode()
        return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
