"""Servers of tests that end without a trace."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


async def close_door(server: asyncio.Server) -> None:
    """Accept nobody any more; whoever was accepted has come to the server's callback.

    ``Server.close`` alone drops a connection that was accepted in the same turn of the loop, its socket still open.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(20):  # turns of the loop: more than it takes from the socket to the callback
        await asyncio.sleep(0)
    server.close()


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """One of 127.0.0.1 and localhost, signed by itself: what a server shows, and what a client trusts that knows it."""

    path: Path
    key: Path

    @property
    def served(self) -> ssl.SSLContext:
        """For a server."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.path, self.key)
        return context

    @property
    def trusted(self) -> ssl.SSLContext:
        """For a client."""
        return ssl.create_default_context(cafile=str(self.path))


def own_certificate(folder: Path) -> Certificate:
    """A new one, in ``folder``."""
    path, key = folder / "own.crt", folder / "own.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=own", "-addext",
         "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(path)],
        check=True, capture_output=True,
    )  # fmt: skip
    return Certificate(path=path, key=key)
