"""Servers of tests that end without a trace."""

from __future__ import annotations

import asyncio
import socket


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
