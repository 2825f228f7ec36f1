"""The HTTP client of the Kubernetes store, against servers on the loopback that say exactly what a test lets them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from servers import close_door

from cloaca.store.kubernetes import config
from cloaca.store.kubernetes.api import PAUSES, Api
from cloaca.store.kubernetes.http import Client, NotConnected

HEAVY = {
    *("aiohttp", "yaml", "pydantic", "pydantic_core", "kubernetes", "kopf", "sqlite3", "psycopg"),
    *("cloaca.resources.meta", "cloaca.packages.manifest", "cloaca.resources.plain", "importlib.metadata"),
    *("prometheus_client", "argparse", "tempfile", "uuid", "decimal"),
    *("asyncio", "concurrent.futures", "h11", "http.client", "logging", "traceback", "inspect", "subprocess", "random"),
}


class Server:
    """Answers each request on a connection with the next of ``answers``, in pieces; None: closes, "": says nothing."""

    def __init__(self, *answers: tuple[str, ...] | None) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self.connections = 0
        self.port = 0
        self.serving: list[asyncio.Task[None] | None] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.append(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:")), 0)
                self.requests.append(head + (await reader.readexactly(length)).decode())
                answer = self.answers.pop(0)
                if answer is None:
                    return
                for piece in answer:
                    writer.write(piece.encode())
                    await writer.drain()
                    await asyncio.sleep(0)
                if "Connection: close" in answer[0]:
                    return
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def asked(*answers: tuple[str, ...] | None) -> AsyncIterator[tuple[Server, Client]]:
    server = Server(*answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    client = Client(f"http://127.0.0.1:{server.port}", None, connect=10.0)
    try:
        yield server, client
    finally:
        await client.close()
        await close_door(listening)
        await asyncio.gather(*filter(None, server.serving))


async def get(client: Client, path: str = "/x", total: float | None = 30.0, silence: float | None = None) -> bytes:
    async with client.ask("GET", path, headers={}, total=total, silence=silence) as answer:
        assert answer.status == 200
        return await answer.read()


OK = "HTTP/1.1 200 OK\r\n"
SHORT = (f"{OK}Content-Length: 2\r\n\r\nok",)


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        pytest.param(SHORT, b"ok", id="of a length"),
        pytest.param((f"{OK}content-length:0\r\n\r\n",), b"", id="empty"),
        pytest.param((OK, "Content-", "Length: 5\r", "\n\r\nhe", "llo"), b"hello", id="in pieces"),
        pytest.param(
            (f"{OK}Transfer-Encoding: chunked\r\n\r\n", "3\r", "\nabc\r\n", "a;x=y\r\n0123456789\r\n0\r\nT: r\r\n\r\n"),
            b"abc0123456789",
            id="in chunks, with trailers",
        ),
        pytest.param((f"{OK}Connection: close\r\n\r\nto the end",), b"to the end", id="to the end"),
        pytest.param((f"HTTP/1.1 100 Continue\r\n\r\n{OK}Content-Length: 1\r\n\r\n1",), b"1", id="after another one"),
    ],
)
async def test_an_answer_is_read_to_its_end(pieces: tuple[str, ...], body: bytes) -> None:
    async with asked(pieces, SHORT) as (_, client):
        assert await get(client) == body
        assert await get(client) == b"ok"  # nothing of it is left for the next


async def test_a_request_says_what_it_is_given() -> None:
    async with asked(SHORT) as (server, client):
        headers, params = {"Accept": "a/b"}, {"labelSelector": "a=b,c=d e"}
        async with client.ask("PATCH", "/y", headers=headers, params=params, data=b"{}", total=30) as answer:
            await answer.read()
        first, host, *rest = server.requests[0].split("\r\n")
        assert first == "PATCH /y?labelSelector=a%3Db%2Cc%3Dd+e HTTP/1.1"
        assert host == f"Host: 127.0.0.1:{server.port}"
        assert rest == ["Accept: a/b", "Content-Length: 2", "", "{}"]


async def test_a_connection_is_kept_and_one_that_the_server_closed_is_not_used() -> None:
    closing = (f"{OK}Content-Length: 2\r\nConnection: close\r\n\r\nok",)
    async with asked(SHORT, SHORT, closing, SHORT) as (server, client):
        for connections in (1, 1, 1, 2):
            await get(client)
            assert server.connections == connections


async def test_requests_at_once_have_a_connection_each() -> None:
    async with asked(*[SHORT] * 40) as (server, client):
        assert await asyncio.gather(*(get(client) for _ in range(20))) == [b"ok"] * 20
        assert await asyncio.gather(*(get(client) for _ in range(20))) == [b"ok"] * 20
        assert server.connections <= 20


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(None, "closed the connection", id="no answer"),
        pytest.param(
            (f"{OK}Content-Length: 9\r\nConnection: close\r\n\r\nshort",),
            "without sending complete message body",
            id="cut short",
        ),
        pytest.param(("SSH-2.0-OpenSSH_9.2\r\n\r\n",), "illegal status line", id="another protocol"),
        pytest.param((f"{OK}Transfer-Encoding: chunked\r\n\r\nxyz\r\n",), "illegal chunk header", id="a broken chunk"),
        pytest.param((f"{OK}X: {'y' * 100_000}",), "Receive buffer too long", id="an endless header"),
    ],
)
async def test_an_answer_that_is_broken_is_an_error(answer: tuple[str, ...] | None, said: str) -> None:
    async with asked(answer, SHORT) as (_, client):
        with pytest.raises(ConnectionError, match=said):
            await get(client)
        assert await get(client) == b"ok"  # on another connection


async def test_who_is_not_there_was_not_asked() -> None:
    async with asked() as (server, client):
        pass
    again = Client(f"http://127.0.0.1:{server.port}", None, connect=10.0)
    with pytest.raises(NotConnected):
        await get(again)
    await again.close()
    assert client.closed


@pytest.mark.parametrize(("total", "silence"), [(0.05, None), (None, 0.05), (30.0, 0.05)])
@pytest.mark.parametrize("answer", [("",), (f"{OK}Content-Length: 9\r\n\r\n", "some")], ids=["nothing", "a part"])
async def test_silence_has_an_end(total: float | None, silence: float | None, answer: tuple[str, ...]) -> None:
    async with asked(answer) as (_, client):
        with pytest.raises(asyncio.TimeoutError):
            await get(client, total=total, silence=silence)


async def test_closing_ends_what_is_under_way() -> None:
    async with asked(("",)) as (server, client):
        waiting = asyncio.ensure_future(get(client, total=None))
        while not server.requests:
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ConnectionError):
            await waiting


@pytest.mark.parametrize("turns", range(16))
async def test_a_request_can_be_cancelled_at_any_time(turns: int) -> None:
    async with asked(("",), ("",)) as (_, client):
        waiting = asyncio.ensure_future(get(client, total=None))
        for _turn in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_token_with_a_line_break_is_no_second_request() -> None:
    async with asked(SHORT) as (server, client):
        with pytest.raises(ConnectionError, match="look at the token"):
            async with client.ask("GET", "/", headers={"Authorization": "Bearer a\r\nX: y"}, total=30):
                pass
        assert server.requests == []


@pytest.mark.parametrize(
    ("header", "pause"), [("Retry-After: 7\r\n", 7.0), ("", PAUSES[0]), ("Retry-After: soon\r\n", PAUSES[0])]
)
async def test_a_busy_server_is_asked_again_when_it_says(
    header: str, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep, slept = asyncio.sleep, []

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    busy = (f"HTTP/1.1 429 Too Many Requests\r\n{header}Content-Length: 2\r\n\r\n{{}}",)
    async with asked(busy, (f"{OK}Content-Length: 2\r\n\r\n{{}}",)) as (server, _):
        url = f"http://127.0.0.1:{server.port}"
        api = Api(config.Server(url=url, namespace="default", tls=None, token=lambda: None))
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "sleep", noted)
            assert await api.request("POST", "/api/v1/namespaces/default/events", body={}) == {}
        await api.close()
    assert [seconds for seconds in slept if seconds] == [pause]


def test_the_process_of_a_run_loads_what_it_needs_and_no_more() -> None:
    """Each of these costs every run, before its first task, more than the run's own requests."""
    code = """
import sys
import cloaca, cloaca.processes.attempt, cloaca.processes.mounted, cloaca.processes.run
import cloaca.packages.load, cloaca.store.kubernetes.runs
cloaca.task, cloaca.trigger, cloaca.WorkflowBuilder, cloaca.TriggerResult
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()
