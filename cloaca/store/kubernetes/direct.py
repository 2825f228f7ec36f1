"""Ask an API server from a thread that waits for the answer: what the process of a run needs of HTTP/1.1, and no more.

Not for watches or for many requests at once, which ``api`` is for: an event loop, and a parser for all that HTTP may
say, take a process longer to load than all that it does before its first task.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from select import POLLIN, poll
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from cloaca.store.kubernetes.config import Server
from cloaca.store.kubernetes.refusals import PAUSES, TIMEOUT, Again, away, refused

IDLE = 15.0  # seconds that a connection which nobody uses is kept: less than any server keeps it
PIECE = 256 * 1024  # bytes that are read at once
LONGEST_HEADER = 64 * 1024  # bytes
LONGEST_BODY = 16 * 1024 * 1024  # bytes; an object has 1.5 MiB at most

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: .*)?")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_NO_HEADER = re.compile("[\0\r\n]")


class Direct:
    """One API server. Thread-safe: each request has a connection of its own, which the next one takes over."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        self._server = server
        self._secure = parts.scheme == "https"
        self._host = (parts.hostname or "").encode("idna" if not server.url.isascii() else "ascii")
        """As bytes: what is text, Python would take through a codec that takes as long to load as a request."""
        self._port = parts.port or (443 if self._secure else 80)
        self._named = parts.netloc.rpartition("@")[2]
        self._base = parts.path.rstrip("/")  # of an API server behind a gateway
        self._idle: deque[_Connection] = deque()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """The answer. Raises as ``Api.request`` does, and tries again as that does."""
        data = None if body is None else json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        for pause in (*PAUSES, None):
            try:
                return self._once(method, path, data, params, content_type)
            except Again as again:
                time.sleep(again.pause(method, pause))
        raise AssertionError("unreachable")

    def _once(
        self, method: str, path: str, data: bytes | None, params: Mapping[str, str] | None, content_type: str
    ) -> dict[str, Any]:
        target = f"{self._base}{path}?{urlencode(params)}" if params else f"{self._base}{path}"
        headers = {"Host": self._named, "User-Agent": "cloacina", "Accept": "application/json"}
        token = self._server.token()
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if data is not None:
            headers |= {"Content-Type": content_type, "Content-Length": str(len(data))}
        until = time.monotonic() + TIMEOUT
        connection = None
        try:
            request = _written(method, target, headers, data)
            connection = self._kept() or self._connected(until)
            answer = connection.ask(request, until)
        except OSError as error:
            if connection is not None:
                connection.close()
            said = "no answer in time" if isinstance(error, socket.timeout) else str(error) or type(error).__name__
            raise Again(away(self._server.url, said), untaken=connection is None) from error
        if answer.reusable:
            self._idle.append(connection)
        else:
            connection.close()
        if answer.status >= 400:
            raise refused(answer.status, answer.body, path, answer.headers.get("retry-after"))
        answered: dict[str, Any] = json.loads(answer.body)
        return answered

    def _kept(self) -> _Connection | None:
        """The warmest connection that is still good."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.good:
                return connection
            connection.close()

    def _connected(self, until: float) -> _Connection:
        link = socket.create_connection((self._host, self._port), _left(until))  # type: ignore[arg-type]  # bytes will do
        try:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure and self._server.tls is not None:
                link.settimeout(_left(until))
                link = self._server.tls.wrap_socket(link, server_hostname=self._host)
        except BaseException:
            link.close()
            raise
        return _Connection(link)

    def close(self) -> None:
        """Let go of the connections that nobody uses. Idempotent."""
        while self._idle:
            self._idle.pop().close()


class _Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: Mapping[str, str]  # by their names in lower case
    body: bytes
    reusable: bool  # whether the connection may be asked again


class _Connection:
    """One connection, over which one request at a time is asked."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = bytearray()
        self._ended = False
        self._until = 0.0
        self._used_at = 0.0

    @property
    def good(self) -> bool:
        """Whether it may be asked again: the server has neither closed it nor said what nobody asked for."""
        if time.monotonic() - self._used_at > IDLE:
            return False
        waiting = poll()
        waiting.register(self._link, POLLIN)
        return not waiting.poll(0)

    def ask(self, request: bytes, until: float) -> _Answer:
        """The whole answer. Raises OSError: TimeoutError where it takes too long, ConnectionError where it breaks."""
        self._until = until
        self._link.settimeout(_left(until))
        self._link.sendall(request)
        while True:
            newer, status, headers = self._head()
            if status >= 200:
                break  # what came before it only says that the server goes on
        coding = headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        bounded = True
        if status in (204, 304):
            body = b""
        elif coding == "chunked":
            body = b"".join(self._chunks())
        elif coding or (length is not None and not (length.isascii() and length.isdigit())):
            raise ConnectionError(f"the answer is broken: a body of {coding or length}")
        elif length is not None:
            body = self._take(int(length))
        else:
            body, bounded = self._rest(), False
        self._used_at = time.monotonic()
        kept = newer and bounded and headers.get("connection", "").lower() != "close" and not self._buffer
        return _Answer(status, headers, body, reusable=kept)

    def _head(self) -> tuple[bool, int, dict[str, str]]:
        """Whether the server speaks HTTP/1.1, its status and headers."""
        first, *lines = self._line_up_to(b"\r\n\r\n").split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            raise ConnectionError("the answer is broken: an illegal status line")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or name != name.strip():
                raise ConnectionError("the answer is broken: an illegal header line")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return status[1] == b"1", int(status[2]), headers

    def _chunks(self) -> Iterator[bytes]:
        total = 0
        while True:
            size = _CHUNK.fullmatch(self._line_up_to(b"\r\n"))
            if size is None:
                raise ConnectionError("the answer is broken: an illegal chunk header")
            count = int(size[1], 16)
            if not count:
                break
            total += count
            if total > LONGEST_BODY:
                raise ConnectionError(f"the answer has more than {LONGEST_BODY:,} bytes")
            yield self._take(count)
            if self._take(2) != b"\r\n":
                raise ConnectionError("the answer is broken: an illegal end of a chunk")
        while self._line_up_to(b"\r\n"):
            continue  # a trailer

    def _line_up_to(self, end: bytes) -> bytes:
        """What stands before the next ``end``, which goes with it."""
        looked = 0
        while (at := self._buffer.find(end, looked)) < 0:
            if len(self._buffer) > LONGEST_HEADER:
                raise ConnectionError("the answer is broken: an endless header")
            looked = max(0, len(self._buffer) - len(end) + 1)
            if not self._more():
                raise ConnectionError("the server closed the connection")
        line = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return line

    def _take(self, count: int) -> bytes:
        if count > LONGEST_BODY:
            raise ConnectionError(f"the answer has more than {LONGEST_BODY:,} bytes")
        while len(self._buffer) < count:
            if not self._more():
                raise ConnectionError("the server closed the connection before its answer was complete")
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _rest(self) -> bytes:
        while self._more():
            if len(self._buffer) > LONGEST_BODY:
                raise ConnectionError(f"the answer has more than {LONGEST_BODY:,} bytes")
        return self._take(len(self._buffer))

    def _more(self) -> bool:
        """Read what has come; False: nothing ever will."""
        if not self._ended:
            self._link.settimeout(_left(self._until))
            piece = self._link.recv(PIECE)
            self._buffer += piece
            self._ended = not piece
        return not self._ended

    def close(self) -> None:
        """Close it at once."""
        self._link.close()


def _left(until: float) -> float:
    """Seconds. Raises TimeoutError where there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _written(method: str, target: str, headers: Mapping[str, str], data: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, "", ""])
    if any(map(_NO_HEADER.search, lines)) or not head.isascii():  # nothing is said of it: it may be the token
        raise ConnectionError("a header of the request holds what no header may: look at the token")
    return head.encode() + (data or b"")
