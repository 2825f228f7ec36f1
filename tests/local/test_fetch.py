"""The process that fetches, against real HTTP servers: what it reports, leaves, and refuses."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from builders import WORKFLOW, archive
from servers import Certificate, own_certificate

from cloaca.packages.archive import digest_of
from cloaca.processes.fetch import GO_ON, STOP
from cloaca.processes.fetch_report import FetchReport, read_fetch_report
from cloaca.processes.mounted import joined_parts

PATIENCE = 60.0
ONE, TWO = archive(WORKFLOW), archive(WORKFLOW, version="2.0.0")
BOMB = archive(WORKFLOW + "a=[[]]\n" * 140_000)


class Source:
    """A server that tells versions."""

    def __init__(self) -> None:
        self.data = ONE
        self.statuses: list[int] = []
        self.url = ""
        self.asked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        tag = f'"{digest_of(self.data)[:20]}"'
        same = request.headers.get("If-None-Match") == tag
        self.statuses.append(304 if same else 200)
        self.asked.set()
        return web.Response(status=304) if same else web.Response(body=self.data, headers={"ETag": tag})


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    async with served(None) as made:
        yield made


@pytest.fixture
async def secure_source(tmp_path: Path) -> AsyncIterator[Source]:
    """The same over https; its certificate is ``own.crt``."""
    async with served(own_certificate(tmp_path)) as made:
        yield made


@asynccontextmanager
async def served(certificate: Certificate | None) -> AsyncIterator[Source]:
    made = Source()
    app = web.Application()
    app.router.add_get("/demo.cloacina", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=None if certificate is None else certificate.served).start()
    scheme = "http" if certificate is None else "https"
    made.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/demo.cloacina"
    yield made
    await runner.cleanup()


async def started(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    folder.mkdir(exist_ok=True)
    here = [] if "--strict" in arguments else ["--allow-local"]  # the sources of these tests are on this machine
    arguments = tuple(argument for argument in arguments if argument != "--strict")
    command = [sys.executable, "-m", "cloaca.processes.fetch", f"--out={folder / 'out'}", *here, *arguments]
    words = {"CLOACA_LAST_WORDS": str(folder / "words")}
    return await asyncio.create_subprocess_exec(*command, env={**os.environ, **words})


async def ended(process: asyncio.subprocess.Process, folder: Path) -> tuple[int, FetchReport]:
    code = await asyncio.wait_for(process.wait(), PATIENCE)
    return code, read_fetch_report((folder / "words").read_text())


async def fetched(folder: Path, *arguments: str) -> tuple[int, FetchReport]:
    return await ended(await started(folder, *arguments), folder)


async def test_the_bytes_are_there_in_parts_and_the_report_says_what_they_are(source: Source, tmp_path: Path) -> None:
    code, report = await fetched(tmp_path, f"--url={source.url}", f"--digest={digest_of(ONE)}")

    assert (code, report.digest, report.size, report.version) == (GO_ON, digest_of(ONE), len(ONE), "1.0.0")
    assert joined_parts(tmp_path / "out") == ONE
    assert report.revision is not None


async def test_what_is_known_is_neither_sent_nor_kept(source: Source, tmp_path: Path) -> None:
    _, report = await fetched(tmp_path / "1", f"--url={source.url}")
    known = [f"--known={digest_of(ONE)}", f"--revision={report.revision}"]

    code, again = await fetched(tmp_path / "2", f"--url={source.url}", *known)
    _, whole = await fetched(tmp_path / "3", f"--url={source.url}", known[0])

    assert (code, again.unchanged, again.digest, source.statuses) == (STOP, True, digest_of(ONE), [200, 304, 200])
    assert whole.unchanged
    assert not (tmp_path / "2" / "out").exists()


async def test_it_waits_for_news_and_goes_on_with_them(source: Source, tmp_path: Path) -> None:
    known = [f"--known={digest_of(ONE)}", "--every=0.05", "--after=0"]
    waiting = await started(tmp_path, f"--url={source.url}", *known)
    while source.statuses.count(304) < 2:
        source.asked.clear()
        await asyncio.wait_for(source.asked.wait(), PATIENCE)
    assert waiting.returncode is None

    source.data = TWO
    code, report = await ended(waiting, tmp_path)

    assert (code, report.digest, report.version) == (GO_ON, digest_of(TWO), "2.0.0")
    assert source.statuses.count(200) == 2, "the bytes are sent where they are others"
    assert joined_parts(tmp_path / "out") == TWO


@pytest.mark.parametrize(
    ("data", "more", "refusal", "said"),
    [
        pytest.param(ONE, ["--digest=sha256:" + "0" * 64], "DigestMismatch", "pins sha256:0000", id="another digest"),
        pytest.param(b"no tar", [], "ArchiveInvalid", "not a tar archive", id="no archive"),
        pytest.param(ONE, ["--packed=10"], "FetchFailed", "larger than the limit of 10 bytes", id="too large"),
        pytest.param(ONE, ["--sources=10"], "ArchiveInvalid", "over the limit of 10: move modules", id="too much code"),
        pytest.param(archive("x = 1"), [], "NamesDisagree", "the code has no such task", id="names disagree"),
        pytest.param(BOMB, ["--memory=268435456"], None, "memory|too large", id="code that takes all memory"),
    ],
)
async def test_what_is_refused_says_why_and_leaves_nothing(
    source: Source, tmp_path: Path, data: bytes, more: list[str], refusal: str | None, said: str
) -> None:
    source.data = data

    code, report = await fetched(tmp_path, f"--url={source.url}", *more)

    assert code == STOP
    assert report.refusal == refusal or (refusal is None and report.refusal in ("ArchiveInvalid", "NamesDisagree"))
    assert any(word in report.message for word in said.split("|")), report
    assert not (tmp_path / "out").exists()


async def test_a_source_that_is_away_is_worth_another_try(tmp_path: Path) -> None:
    code, report = await fetched(tmp_path, "--url=http://127.0.0.1:1/demo.cloacina")

    assert (code, report.refusal, report.retry) == (STOP, "FetchFailed", True)


@pytest.mark.parametrize("url", ["file:///etc/hosts", "s3://bucket/demo.cloacina"])
async def test_a_source_that_is_not_for_here_is_not_tried_again(tmp_path: Path, url: str) -> None:
    code, report = await fetched(tmp_path, f"--url={url}")

    assert (code, report.refusal, report.retry) == (STOP, "SourceUnsupported", False)


async def test_the_credentials_are_those_of_the_mounted_secret(
    tmp_path: Path, secure_source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = secure_source
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.crt"))
    (tmp_path / "secret").mkdir()
    arguments = [f"--url={source.url}", f"--secret={tmp_path / 'secret'}", "--secret-named=team/registry"]

    _, report = await fetched(tmp_path, *arguments)

    assert (report.refusal, report.retry) == ("FetchFailed", True)
    assert "no Secret team/registry with the key token" in report.message
    (tmp_path / "secret" / "token").write_text("open-sesame\n")
    assert (await fetched(tmp_path, *arguments))[0] == GO_ON
    (tmp_path / "secret" / "hosts").write_text("packages.example.com, registry.example.com")
    assert (
        "for these hosts only: packages.example.com, registry.example.com"
        in (await fetched(tmp_path, *arguments))[1].message
    )


async def test_parts_that_are_mounted_are_put_together(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number, start in enumerate(range(0, len(ONE), 200)):
        (tmp_path / "source" / f"{number:03d}").write_bytes(ONE[start : start + 200])

    code, report = await fetched(tmp_path, f"--parts={tmp_path / 'source'}", "--named=the ConfigMap team/demo")
    assert (code, report.digest) == (GO_ON, digest_of(ONE))

    _, report = await fetched(tmp_path, f"--parts={tmp_path / 'nothing'}", "--named=the ConfigMap team/demo")
    assert report.message.startswith("the ConfigMap team/demo is not there")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param((), "over http anybody on the way can change the archive", id="http without a pinned digest"),
        pytest.param((f"--digest={digest_of(ONE)}",), "an address of this machine itself", id="loopback"),
        pytest.param(
            (f"--digest={digest_of(ONE)}", "--allow-private", "--allowed-host=127.0.0.1"),
            "an address of this machine itself",
            id="loopback, whatever is allowed",
        ),
    ],
)
async def test_by_default_nothing_of_the_machine_itself_is_fetched(
    source: Source, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, report = await fetched(tmp_path, "--strict", f"--url={source.url}", *arguments)

    assert (code, report.refusal) == (STOP, "FetchFailed")
    assert said in report.message
    assert source.statuses == []
