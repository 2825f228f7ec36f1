"""The port that is scraped: real connections, good ones and such as want more than their share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from figures import scraped
from prometheus_client import CollectorRegistry, Gauge
from servers import free_port

from cloaca.processes import scrapes
from cloaca.processes.scrapes import LONGEST, PLACES, Scrapes

LOOPBACK = "127.0.0.1"
ASK = b"GET /metrics HTTP/1.1\r\nHost: demo\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """A port with one figure."""
    registry = CollectorRegistry()
    Gauge("demo", "One figure.", registry=registry).set(7)
    port, answering = free_port(), Scrapes(registry)
    await answering.start(port)
    try:
        yield port
    finally:
        await answering.close()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def answer(port: int, asked: bytes = ASK) -> str:
    """All that comes back until the connection ends, which is nothing where it is reset."""
    async with connected(port) as (reader, writer):
        writer.write(asked)
        with suppress(ConnectionError):
            return (await asyncio.wait_for(reader.read(), 10.0)).decode()
    return ""


async def answered(port: int) -> str:
    """The first answer: a server may yet have to hear who has left."""
    while not (said := await answer(port)):
        await asyncio.sleep(0.01)
    return said


async def test_a_scrape_gets_the_figures_and_those_of_the_process() -> None:
    async with served() as port:
        seen = await asyncio.to_thread(scraped, port)
    assert seen["demo"] == 7
    assert seen["process_resident_memory_bytes"] > 1_000_000


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        pytest.param(ASK, "HTTP/1.1 200 ", id="metrics"),
        pytest.param(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ", id="an old one with a query"),
        pytest.param(b"GET /other HTTP/1.1\r\nHost: demo\r\n\r\n", "HTTP/1.1 404 ", id="another page"),
        pytest.param(b"HEAD /metrics HTTP/1.1\r\nHost: demo\r\n\r\n", "HTTP/1.1 405 ", id="head"),
        pytest.param(b"POST /metrics HTTP/1.1\r\nHost: demo\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 405 ", id="post"),
        pytest.param(b"\x16\x03\x01\x02\r\n\r\n", "", id="no HTTP"),
        pytest.param(b"GET /metrics HTTP/1.1\r\nHost: " + b"x" * 2 * LONGEST, "", id="without end"),
    ],
)
async def test_only_get_metrics_is_answered(asked: bytes, answered: str) -> None:
    async with served() as port:
        assert (await answer(port, asked)).partition("\r\n")[0][: len("HTTP/1.1 200 ")] == answered
        assert "demo 7.0" in await answer(port)


async def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrapes, "SECONDS", 0.2)
    async with served() as port:
        assert await answer(port, ASK[:10]) == ""


async def test_one_more_than_there_are_places_is_not_answered_until_somebody_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrapes, "SECONDS", 60.0)
    async with served() as port:
        async with AsyncExitStack() as silent:
            for _ in range(PLACES):
                await silent.enter_async_context(connected(port))
            assert await answer(port) == ""
        assert "demo 7.0" in await asyncio.wait_for(answered(port), 10.0)


async def test_a_port_that_is_taken_is_refused_at_once() -> None:
    async with served() as port:
        with pytest.raises(OSError, match="in use"):
            await Scrapes(CollectorRegistry()).start(port)


async def test_the_port_closes_though_somebody_is_connected() -> None:
    async with AsyncExitStack() as left:
        async with served() as port:
            reader, writer = await left.enter_async_context(connected(port))
            writer.write(ASK[:10])
            await answer(port)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10.0) == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOOPBACK, port)
