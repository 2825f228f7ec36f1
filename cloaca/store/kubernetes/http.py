"""Keep connections to one server, over which h11 speaks HTTP/1.1: what an API server needs of it, and no more.

Why not with a client for all of the web: the process of a run pays for every import before its first task, and that
import alone took longer than all that the process does itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import h11

T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

AT_ONCE = 20  # requests, each with a connection of a quarter of a megabyte; those whose answers never end do not count
IDLE = 15.0  # seconds that a connection which nobody uses is kept: less than any server keeps it
PIECE = 256 * 1024  # bytes that are read at once
LONGEST_HEADER = 64 * 1024  # bytes


class NotConnected(OSError):
    """There was no connection: the server knows nothing of the request."""


class Answer:
    """What the server says. Read it once: whole, or in pieces."""

    def __init__(self, connection: _Connection, said: h11.Response) -> None:
        self.status = said.status_code
        self.headers: Mapping[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in said.headers
        }
        """By their names in lower case."""
        self._connection = connection

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ConnectionError where it ends early, TimeoutError where nothing more comes."""
        while isinstance(event := await self._connection.event(), h11.Data):
            yield bytes(event.data)
        self._connection.finish()


class Client:
    """One server. Belongs to one event loop."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, *, connect: float) -> None:
        """``connect``: seconds that a connection may take to be made."""
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._secure else 80)
        self._named = parts.netloc.rpartition("@")[2]
        self._tls = tls
        self._connect = connect
        self._idle: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.closed = False

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        total: float | None = None,
        silence: float | None = None,
    ) -> AsyncIterator[Answer]:
        """The answer, once its header is there. None: no limit.

        ``total``: seconds until the end of the block; ``silence``: seconds without a byte. Raises NotConnected, other
        OSErrors, TimeoutError.
        """
        if total is None:
            async with self._asked(method, path, headers, params, data, silence, None) as answer:
                yield answer
            return
        async with self._turns:
            until = asyncio.get_running_loop().time() + total
            async with self._asked(method, path, headers, params, data, silence, until) as answer:
                yield answer

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None,
        data: bytes | None,
        silence: float | None,
        until: float | None,
    ) -> AsyncIterator[Answer]:
        request = _request(method, path, self._named, params, headers, data)
        connection = self._kept() or await self._connected()
        self._busy.add(connection)
        connection.begin(silence, until)
        try:
            await connection.send(request, h11.Data(data=data or b""), h11.EndOfMessage())
            yield await connection.answer()
        finally:
            connection.rest()
            self._busy.discard(connection)
            if connection.reusable and not self.closed:
                self._idle.append(connection)
            else:
                connection.abort()
                await connection.gone()

    def _kept(self) -> _Connection | None:
        """The warmest connection that is still good."""
        oldest = asyncio.get_running_loop().time() - IDLE
        while self._idle and (self._idle[0].used_at < oldest or self._idle[0].ended):
            self._idle.popleft().abort()
        while self._idle:
            connection = self._idle.pop()
            if not connection.ended:
                return connection
            connection.abort()
        return None

    async def _connected(self) -> _Connection:
        tls = self._tls if self._secure else None
        opening = asyncio.ensure_future(asyncio.open_connection(self._host, self._port, ssl=tls, limit=PIECE))
        opened: Streams | None = None
        try:
            await asyncio.wait({opening}, timeout=self._connect)  # wait_for would swallow a cancellation now and then
            if not opening.done():
                raise NotConnected("no connection in time")
            opened = opening.result()
        except OSError as error:
            raise error if isinstance(error, NotConnected) else NotConnected(str(error)) from error
        finally:
            if opened is None:
                opening.cancel()
                opening.add_done_callback(_let_go)
        return _Connection(*opened)

    async def close(self) -> None:
        """Let go of all connections; whoever waits for an answer gets a ConnectionError. Idempotent."""
        self.closed = True
        connections = [*self._idle, *self._busy]
        self._idle.clear()
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.gone()


class _Connection:
    """One connection, and how long its server may be silent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEADER)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._silence: float | None = None
        self._until: float | None = None
        self._late = False
        self.reusable = False
        self.used_at = 0.0

    @property
    def ended(self) -> bool:
        """Whether the server closed it."""
        return self._reader.at_eof() or self._writer.is_closing()

    def begin(self, silence: float | None, until: float | None) -> None:
        """A request begins."""
        self.reusable = False
        self._silence, self._until = silence, until
        self._watch_the_clock()

    def finish(self) -> None:
        """The answer was read to its end."""
        if self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._http.start_next_cycle()
            self.reusable = not self._http.trailing_data[0]

    def rest(self) -> None:
        """The request is over."""
        self.used_at = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch_the_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        limits = [] if self._until is None else [self._until]
        limits += [] if self._silence is None else [self._loop.time() + self._silence]
        self._timer = self._loop.call_at(min(limits), self._too_late) if limits else None

    def _too_late(self) -> None:
        self._late = True
        self.abort()

    async def send(self, *events: h11.Event) -> None:
        """Send it."""
        self._writer.write(b"".join([self._http.send(event) or b"" for event in events]))
        await self._heard(self._writer.drain())

    async def answer(self) -> Answer:
        """The header of the answer."""
        while not isinstance(event := await self.event(), h11.Response):
            continue  # one before it only says that the server goes on
        return Answer(self, event)

    async def event(self) -> object:
        """What the server says next, an event of h11."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                piece = await self._some()
                if not piece and self._http.their_state is h11.SEND_RESPONSE:
                    raise ConnectionError("the server closed the connection")
                self._http.receive_data(piece)
        except h11.RemoteProtocolError as error:
            raise ConnectionError(f"the answer is broken: {error}") from None
        return event

    async def _some(self) -> bytes:
        """What has come; nothing: the end."""
        piece = await self._heard(self._reader.read(PIECE))
        if not piece and self._late:
            raise asyncio.TimeoutError
        if self._silence is not None:
            self._watch_the_clock()
        return piece

    async def _heard(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except OSError:
            if self._late:
                raise asyncio.TimeoutError from None
            raise

    def abort(self) -> None:
        """Close it at once."""
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Return when it is closed."""
        with suppress(OSError):
            await self._writer.wait_closed()


def _let_go(opening: asyncio.Future[Streams]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].transport.abort()


def _request(
    method: str,
    path: str,
    host: str,
    params: Mapping[str, str] | None,
    headers: Mapping[str, str],
    data: bytes | None,
) -> h11.Request:
    length = {} if data is None and method == "GET" else {"Content-Length": str(len(data or b""))}
    target = f"{path}?{urlencode(params)}" if params else path
    try:
        return h11.Request(method=method, target=target, headers=[*{"Host": host, **headers, **length}.items()])
    except h11.LocalProtocolError:  # whose message would show the token
        raise ConnectionError("a header of the request holds what no header may: look at the token") from None
