"""Fetch archives from real HTTP servers, well behaved and not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from servers import Certificate, own_certificate

from cloaca.errors import SourceError
from cloaca.packages.addresses import Address, SourcePolicy
from cloaca.packages.http import Answer, Credentials, download

BYTES = bytes(range(256)) * 4000
SECRET = "hunter2-do-not-print"


async def archive(request: web.Request) -> web.Response:
    return web.Response(body=BYTES)


VERSIONS = {"ETag": ('"one"', "If-None-Match"), "Last-Modified": ("Sat, 28 Mar 2026 09:00:00 GMT", "If-Modified-Since")}


async def versioned(request: web.Request) -> web.Response:
    header = request.query.get("as", "ETag")
    version, condition = VERSIONS[header]
    if request.headers.get(condition) == version:
        return web.Response(status=304)
    return web.Response(body=b"versioned", headers={header: version})


async def private(request: web.Request) -> web.Response:
    allowed = {Credentials(token=SECRET).header, Credentials(username="ada", password=SECRET).header}
    if request.headers.get("Authorization") not in allowed:
        raise web.HTTPUnauthorized
    return web.Response(body=b"private")


async def endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"x" * 65_536)


async def drip(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"x")
        await asyncio.sleep(0.02)


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def broken_off(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b"x" * 10)
    assert request.transport is not None
    request.transport.abort()
    return answer


async def loop(request: web.Request) -> web.Response:
    raise web.HTTPFound("/loop")


async def to_file(request: web.Request) -> web.Response:
    raise web.HTTPFound("file:///etc/passwd")


async def onward(request: web.Request) -> web.Response:
    raise web.HTTPFound(request.query["to"])


async def seen_header(request: web.Request) -> web.Response:
    return web.Response(text=request.headers.get("Authorization", "nothing"))


async def failing(request: web.Request) -> web.Response:
    raise web.HTTPInternalServerError


HANDLERS = (
    archive, versioned, private, endless, drip, silent, broken_off, loop, to_file, onward, seen_header, failing,
)  # fmt: skip


Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server on a free port; gives its address."""
    runners: list[web.AppRunner] = []

    async def start(tls: ssl.SSLContext | None = None) -> str:
        app = web.Application()
        for handler in (
            archive,
            versioned,
            private,
            endless,
            drip,
            silent,
            broken_off,
            loop,
            to_file,
            onward,
            seen_header,
            failing,
        ):
            app.router.add_get(f"/{handler.__name__}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        return f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return own_certificate(tmp_path_factory.mktemp("certificate"))


async def get(url: str, **options: object) -> bytes:
    answer = await asked(url, **options)
    assert answer.data is not None
    return answer.data


async def asked(url: str, **options: object) -> Answer:
    return await asyncio.to_thread(download, url, **{"limit": 2_000_000, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["versioned?as=ETag", "versioned?as=Last-Modified", "onward?to=/versioned"])
async def test_what_is_still_the_newest_is_not_sent_again(serve: Serve, path: str) -> None:
    url = f"{await serve()}/{path}"
    first = await asked(url)
    assert first.data == b"versioned"
    assert first.revision is not None

    again = await asked(url, revision=first.revision)

    assert (again.data, again.revision) == (None, first.revision)
    assert (await asked(url, revision='ETag: "another"')).data == b"versioned"


async def test_a_source_that_knows_no_versions_gives_the_bytes_each_time(serve: Serve) -> None:
    url = f"{await serve()}/archive"
    assert (await asked(url)).revision is None
    assert (await asked(url, revision='ETag: "x"')).data == BYTES


async def test_what_is_there_comes_whole(serve: Serve) -> None:
    assert await get(f"{await serve()}/archive") == BYTES


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(Credentials(token=SECRET), id="bearer"),
        pytest.param(Credentials(username="ada", password=SECRET), id="basic"),
    ],
)
async def test_credentials_open_what_is_private(serve: Serve, certificate: Certificate, known: Credentials) -> None:
    address = await serve(certificate.served)
    assert await get(f"{address}/private", credentials=known, trusted=certificate.trusted) == b"private"
    assert SECRET not in repr(known)


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        pytest.param("private", {}, "401 Unauthorized: name a Secret", id="no credentials"),
        pytest.param("nothing", {}, "404: there is nothing there", id="404"),
        pytest.param("failing", {}, "500 Internal Server Error", id="500"),
        pytest.param("archive", {"limit": 1000}, "larger than the limit of 1,000 bytes: it has 1,024,000", id="large"),
        pytest.param("endless", {"limit": 100_000}, "larger than the limit of 100,000 bytes", id="endless"),
        pytest.param("silent", {"silence": 0.2}, "no answer within 0.2 s", id="silent"),
        pytest.param("drip", {"timeout": 0.3}, "not whole in time", id="a drip"),
        pytest.param("broken_off", {}, "broke off|cannot be fetched", id="broken off"),
        pytest.param("loop", {}, "more than 5 redirects", id="redirect loop"),
        pytest.param("to_file", {}, "302: it redirects to what is not", id="to a file"),
    ],
)
async def test_what_cannot_be_had_says_why_and_shows_no_secret(
    serve: Serve, path: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        await get(f"{await serve()}/{path}?signature={SECRET}", **options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("credentials", "tls", "said"),
    [
        pytest.param(Credentials(token="x"), True, "not accepted", id="wrong ones"),
        pytest.param(Credentials(token=SECRET), False, "are sent over https only", id="over http"),
        pytest.param(
            Credentials(token=SECRET, hosts=frozenset({"registry.example"})),
            True,
            "is for these hosts only: registry.example",
            id="of another host",
        ),
    ],
)
async def test_credentials_that_do_not_fit_are_refused_and_not_shown(
    serve: Serve, certificate: Certificate, credentials: Credentials, tls: bool, said: str
) -> None:
    address = await serve(certificate.served if tls else None)
    with pytest.raises(SourceError, match=said) as caught:
        await get(f"{address}/private", credentials=credentials, trusted=certificate.trusted)
    assert SECRET not in str(caught.value)


async def test_credentials_stay_with_their_origin(serve: Serve, certificate: Certificate) -> None:
    first, second = await serve(certificate.served), await serve(certificate.served)
    options = {"credentials": Credentials(token=SECRET), "trusted": certificate.trusted}
    header = Credentials(token=SECRET).header.encode()
    assert await get(f"{first}/onward?to={first}/seen_header", **options) == header
    assert await get(f"{first}/onward?to={second}/seen_header", **options) == b"nothing"


NOWHERE = SourcePolicy()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_an_address_of_the_machine_itself_is_refused_on_a_cluster(
    serve: Serve, certificate: Certificate, host: str, tls: bool
) -> None:
    """Nothing was connected to: the server would have answered."""
    address = (await serve(certificate.served if tls else None)).replace("127.0.0.1", host)
    with pytest.raises(SourceError, match=rf"^{host} may not be fetched from: .* an address of this machine itself"):
        await get(f"{address}/archive", policy=NOWHERE, trusted=certificate.trusted)


async def test_a_redirect_leads_to_no_address_that_is_refused(serve: Serve) -> None:
    """The first host may be reached, since it is listed; the machine's own metadata service may not."""

    class First(SourcePolicy):
        def refusal(self, host: str, address: Address) -> str | None:
            return None if host == "127.0.0.1" else super().refusal(host, address)

    address = await serve()
    with pytest.raises(SourceError, match=r"169\.254\.169\.254 is a link-local or metadata address"):
        await get(f"{address}/onward?to=http://169.254.169.254/latest/meta-data/", policy=First())


async def test_a_proxy_that_the_environment_names_decides_about_addresses(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", await serve())
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(SourceError, match="404"):  # the proxy answered
        await get("http://source.example/nothing", policy=NOWHERE)


async def test_nobody_listening_is_said(unused_tcp_port: int) -> None:
    with pytest.raises(SourceError, match=r"cannot be fetched: .*refused"):
        await get(f"http://127.0.0.1:{unused_tcp_port}/archive")


async def test_a_certificate_must_be_of_a_known_authority(serve: Serve, certificate: Certificate) -> None:
    address = await serve(certificate.served)
    with pytest.raises(SourceError, match="certificate verify failed"):
        await get(f"{address}/archive")
    assert await get(f"{address}/archive", trusted=certificate.trusted) == BYTES
    plain = await serve()
    with pytest.raises(SourceError, match="from https to http: not followed"):
        await get(f"{address}/onward?to={plain}/archive", trusted=certificate.trusted)
