"""What asks an API server from a thread, against servers on the loopback that say exactly what a test lets them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from cloaca.errors import Conflict, Forbidden, NotFound, StoreUnavailable
from cloaca.store.kubernetes import direct, refusals
from cloaca.store.kubernetes.config import Server
from cloaca.store.kubernetes.direct import Direct

OK = "HTTP/1.1 200 OK\r\n"
SHORT = (f"{OK}Content-Length: 2\r\n\r\n{{}}",)


class Answers:
    """Answers each request with the next of ``answers``, in pieces; None: closes, "": says nothing."""

    def __init__(self, *answers: tuple[str, ...] | None) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self.connections = 0
        self.door = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._welcome, daemon=True).start()

    def _welcome(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self.door.accept()
                self.connections += 1
                self._open.append(link)
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with link, suppress(OSError), link.makefile("rb") as heard:
            while True:
                head = ""
                while not head.endswith("\r\n\r\n"):
                    line = heard.readline().decode()
                    if not line:
                        return
                    head += line
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:")), 0)
                self.requests.append(head + heard.read(length).decode())
                answer = self.answers.pop(0)
                if answer is None:
                    return
                for piece in answer:
                    link.sendall(piece.encode())
                    time.sleep(0.002)
                if "Connection: close" in answer[0]:
                    return

    def close(self) -> None:
        with suppress(OSError):
            self.door.shutdown(socket.SHUT_RDWR)
        self.door.close()
        for link in self._open:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


@contextmanager
def asked(*answers: tuple[str, ...] | None, token: str | None = "t") -> Iterator[tuple[Answers, Direct]]:
    server = Answers(*answers)
    url = f"http://127.0.0.1:{server.door.getsockname()[1]}/behind"
    client = Direct(Server(url=url, namespace="default", tls=None, token=lambda: token))
    try:
        yield server, client
    finally:
        client.close()
        server.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses before the next try; none of them is made."""
    slept: list[float] = []
    monkeypatch.setattr(direct.time, "sleep", lambda seconds: slept.append(seconds) if seconds > 0.01 else None)
    return slept


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        pytest.param(SHORT, {}, id="of a length"),
        pytest.param((OK, "Content-", "Length: 7\r", '\n\r\n{"a', '":1}'), {"a": 1}, id="in pieces"),
        pytest.param(
            (f"{OK}Transfer-Encoding: chunked\r\n\r\n", "3\r", '\n{"a\r\n', '4;x=y\r\n":1}\r\n0\r\nT: r\r\n\r\n'),
            {"a": 1},
            id="in chunks, with trailers",
        ),
        pytest.param((f"{OK}Connection: close\r\n\r\n", "{", "}"), {}, id="to the end"),
        pytest.param((f"HTTP/1.1 100 Continue\r\n\r\n{OK}content-length:2\r\n\r\n{{}}",), {}, id="after another one"),
        pytest.param(("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",), {}, id="of an older server"),
    ],
)
def test_an_answer_is_read_to_its_end(pieces: tuple[str, ...], found: object) -> None:
    with asked(pieces, SHORT) as (_, client):
        assert client.request("GET", "/x") == found
        assert client.request("GET", "/x") == {}  # nothing of it is left for the next


def test_a_request_says_what_it_is_given() -> None:
    with asked(SHORT) as (server, client):
        client.request("PATCH", "/y", body={"a": [1]}, params={"v": "Strict"}, content_type="a/b")
        first, host, *rest = server.requests[0].split("\r\n")
        assert first == "PATCH /behind/y?v=Strict HTTP/1.1"
        assert host == f"Host: 127.0.0.1:{server.door.getsockname()[1]}"
        assert rest == [
            *("User-Agent: cloacina", "Accept: application/json", "Authorization: Bearer t"),
            *("Content-Type: a/b", "Content-Length: 9", "", '{"a":[1]}'),
        ]


def test_a_connection_is_kept_unless_it_was_closed_or_rests_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    closing = (f"{OK}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}",)
    gone = (f"{OK}Content-Length: 2\r\nX: Connection: close\r\n\r\n{{}}",)  # closed, though nothing said so
    with asked(SHORT, SHORT, closing, SHORT, gone, SHORT, SHORT) as (server, client):
        for connections in (1, 1, 1, 2, 2):
            client.request("GET", "/x")
            assert server.connections == connections
        (kept,) = client._idle
        until = time.monotonic() + 10
        while kept.good and time.monotonic() < until:
            threading.Event().wait(0.01)
        client.request("GET", "/x")
        assert server.connections == 3
        monkeypatch.setattr(direct, "IDLE", -1.0)
        client.request("GET", "/x")
        assert server.connections == 4


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(None, "the server closed the connection", id="no answer"),
        pytest.param((f"{OK}Content-Length: 9\r\nConnection: close\r\n\r\nshort",), "was complete", id="cut short"),
        pytest.param(("SSH-2.0-OpenSSH_9.2\r\n\r\n",), "illegal status line", id="another protocol"),
        pytest.param((f"{OK}Nothing\r\n\r\n",), "illegal header line", id="no header"),
        pytest.param((f"{OK}Transfer-Encoding: chunked\r\n\r\nxyz\r\n",), "illegal chunk header", id="a broken chunk"),
        pytest.param((f"{OK}Transfer-Encoding: chunked\r\n\r\n1\r\nabc",), "end of a chunk", id="a longer chunk"),
        pytest.param((f"{OK}Transfer-Encoding: gzip\r\n\r\n",), "a body of gzip", id="what nobody asked for"),
        pytest.param((f"{OK}Content-Length: -2\r\n\r\n",), "a body of -2", id="no length"),
        pytest.param((f"{OK}Content-Length: 99999999\r\n\r\n",), "more than", id="too much"),
        pytest.param((f"{OK}X: {'y' * 100_000}",), "endless header", id="an endless header"),
    ],
)
def test_an_answer_that_is_broken_is_an_error_and_a_read_is_made_again(
    answer: tuple[str, ...] | None, said: str, at_once: list[float]
) -> None:
    with asked(answer, SHORT, answer) as (server, client):
        assert client.request("GET", "/x") == {}
        assert at_once == [refusals.PAUSES[0]]
        with pytest.raises(StoreUnavailable, match=f"cannot be reached: .*{said}"):
            client.request("PATCH", "/x", body=[])  # it may have been taken
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [("404 Not Found", NotFound), ("409 Conflict", Conflict), ("403 Forbidden", Forbidden)],
)
def test_a_refusal_is_what_it_means(status: str, error: type[Exception]) -> None:
    with asked((f"HTTP/1.1 {status}\r\nContent-Length: 17\r\n\r\n" + '{"message":"why"}',), SHORT) as (server, client):
        with pytest.raises(error, match="why"):
            client.request("PATCH", "/x", body=[])
        client.request("GET", "/x")
        assert server.connections == 1


def test_a_busy_server_is_asked_again_when_it_says(at_once: list[float]) -> None:
    busy = ("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}",)
    with asked(busy, SHORT) as (_, client):
        assert client.request("PATCH", "/x", body=[]) == {}
    assert at_once == [7.0]


def test_who_is_not_there_is_asked_again_whatever_it_is(at_once: list[float]) -> None:
    with asked() as (_, client):
        pass
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        client.request("PATCH", "/x", body=[])
    assert at_once == list(refusals.PAUSES)


@pytest.mark.parametrize("answer", [("",), (f"{OK}Content-Length: 9\r\n\r\n", "some")], ids=["nothing", "a part"])
def test_silence_has_an_end(answer: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "TIMEOUT", 0.05)
    with asked(answer) as (_, client), pytest.raises(StoreUnavailable, match="no answer in time"):
        client.request("PATCH", "/x", body=[])


@pytest.mark.parametrize("token", ["a\r\nX: y", "a\0", "ä"])
def test_a_token_that_is_none_is_no_second_request_and_is_not_shown(token: str) -> None:
    with asked(SHORT, token=token) as (server, client):
        with pytest.raises(StoreUnavailable, match="look at the token") as refused:
            client.request("GET", "/")
        assert server.requests == []
        assert "X: y" not in str(refused.value)
