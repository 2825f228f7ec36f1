"""A way to the API server that may fall silent, as when a firewall forgets a connection. Understands nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from servers import close_door


@dataclass(kw_only=True)
class _Connection:
    """One that is passed on."""

    said_at: float  # when the client last said something
    passing: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Passes bytes on, unless a connection was silenced."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._connections: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def silence(self, idle: float = 0.0) -> int:
        """What is open now stays open, and nobody hears anything on it any more; returns how many such there are.

        ``idle``: only where the client has said nothing for so many seconds, as on connections that it only listens to.
        """
        until = asyncio.get_running_loop().time() - idle
        for connection in self._connections:
            if connection.said_at <= until:
                connection.passing.clear()
        return sum(not connection.passing.is_set() for connection in self._connections)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a connection to one of its own to the server."""
        self._writers.append(writer)
        task = asyncio.ensure_future(self._join(reader, writer))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(said_at=asyncio.get_running_loop().time())
        connection.passing.set()
        self._connections.append(connection)
        theirs, ours = await asyncio.open_connection(self._host, self._port)
        self._writers.append(ours)
        for source, target in ((reader, ours), (theirs, writer)):
            task = asyncio.ensure_future(self._pass(source, target, connection, of_client=source is reader))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        connection: _Connection,
        *,
        of_client: bool,
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if of_client:
                    connection.said_at = asyncio.get_running_loop().time()
                await connection.passing.wait()
                target.write(data)
                await target.drain()
        target.close()

    async def close(self) -> None:
        """Drop every connection."""
        if self._accepting:
            await asyncio.wait(self._accepting)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def proxied(kubeconfig: Path, folder: Path) -> AsyncIterator[tuple[Proxy, Path]]:
    """A proxy before the server of ``kubeconfig``, and a kubeconfig that leads through it."""
    document = json.loads(kubeconfig.read_text())
    url = urlsplit(document["clusters"][0]["cluster"]["server"])
    proxy = Proxy(url.hostname or "", url.port or 443)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    path = folder / "proxied.kubeconfig"
    path.write_text(json.dumps(document))
    try:
        yield proxy, path
    finally:
        await close_door(server)
        await proxy.close()


async def serve(host: str, port: int, address: str) -> None:
    """Say at which port of ``address`` we listen, and silence whenever a line with ``idle`` comes, until none does."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.accept, address, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(proxy.silence(float(line)), flush=True)


if __name__ == "__main__":  # in another network namespace than that of the tests
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
