"""A person asks for the source to be asked now, by an annotation, as with Flux."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from builders import WORKFLOW, archive
from daemon_process import Daemon

from cloaca.resources import CloacinaPackage, ObjectMeta
from cloaca.resources.names import RECONCILE_ANNOTATION
from cloaca.resources.package import PackageSource, PackageSpec


class Source:
    """A server with one archive, which may be replaced."""

    def __init__(self) -> None:
        self.data = archive(WORKFLOW)
        self.url = ""
        self.asked = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(body=self.data)


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    made = Source()
    app = web.Application()
    app.router.add_get("/demo.cloacina", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/demo.cloacina"
    yield made
    await runner.cleanup()


async def test_a_new_value_of_the_annotation_has_the_source_asked_once(daemon: Daemon, source: Source) -> None:
    daemon.start()
    spec = PackageSpec(source=PackageSource(url=source.url))
    await daemon.submit(CloacinaPackage(metadata=ObjectMeta(name="demo"), spec=spec))
    package = await daemon.package(Ready=("True", "Ready"))
    assert (source.asked, package.status.last_handled_reconcile_at) == (1, None)

    source.data = archive(WORKFLOW, version="2.0.0")
    await daemon.update(package.with_metadata(annotations={RECONCILE_ANNOTATION: "now"}))

    async def newer(store: object) -> CloacinaPackage | None:
        seen = await store.get(CloacinaPackage, "demo", "default")  # type: ignore[attr-defined]
        active = None if seen is None else seen.status.active
        return seen if active is not None and active.version == "2.0.0" else None

    package = await daemon.eventually("the newer version", newer)
    assert (source.asked, package.status.last_handled_reconcile_at) == (2, "now")

    daemon.stop()
    daemon.start()
    await daemon.package(Ready=("True", "Ready"))
    assert source.asked == 2, "what was handled before a restart is not asked for again"
