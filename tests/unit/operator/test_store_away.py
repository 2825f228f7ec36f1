"""The store is away, or behind, while a package is looked at: that is said, counted, and tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

import pytest
from cloacina_operator.core.packages import Refused
from cloacina_operator.hosts.metrics import Meters
from cloacina_operator.shell.archives import Archives
from cloacina_operator.shell.index import Index
from faults.clock import VirtualLoop
from figures import told as told_of

from cloaca.errors import ImportCrashed, StoreUnavailable
from cloaca.packages.acceptance import Accepted
from cloaca.resources import CloacinaPackage, ObjectMeta, Ref
from cloaca.resources.package import PackageSource, PackageSpec
from cloaca.store.base import Change
from cloaca.store.sql.store import SqlStore

DIGEST = f"sha256:{'1' * 64}"


class _Away:
    """An executor whose store does not answer the first three times."""

    def __init__(self) -> None:
        self.asked = 0

    async def import_package(self, package: CloacinaPackage, digest: str) -> Accepted:
        self.asked += 1
        if self.asked <= 3:
            raise StoreUnavailable("no route to it")
        raise ImportCrashed("signal 11")

    async def keep_archives(self, package: CloacinaPackage, digests: Collection[str]) -> None:
        return None


def test_an_inspection_that_the_store_kept_waiting_is_made_again_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = VirtualLoop()
    meters = Meters()
    package = CloacinaPackage(
        metadata=ObjectMeta(name="demo", uid="u"), spec=PackageSpec(source=PackageSource(url="file:///demo"))
    )

    async def inspected() -> tuple[Any, list[float]]:
        store = await SqlStore.open(":memory:")
        told: list[float] = []
        ended = asyncio.Event()

        def changed(ref: Ref) -> None:
            """As the operator: look again, and inspect what was not judged."""
            told.append(round(loop.time() - began, 3))
            if isinstance(archives.verdict(package, DIGEST), Refused):
                ended.set()
            else:
                archives.inspect(package, DIGEST)

        archives = Archives(
            store=store,
            executor=_Away(),  # type: ignore[arg-type]  # all that an inspection asks of one
            changed=changed,
            kept_in=store,
            store_failed=meters.operator_store_failed,
        )
        began = loop.time()
        archives.inspect(package, DIGEST)
        await ended.wait()
        await store.close()
        return archives.verdict(package, DIGEST), told

    with caplog.at_level(logging.WARNING, "cloacina.archives"):
        verdict, told = loop.run_until_complete(inspected())
    loop.close()
    assert verdict.message == "signal 11"
    assert told == [1.0, 3.0, 7.0, 7.0]  # after 1, 2 and 4 s, and when it is judged
    assert [record.getMessage() for record in caplog.records] == [
        f"{package.ref}: the store is away, the inspect is made again in {pause} s: no route to it"
        for pause in (1, 2, 4)
    ]
    assert told_of(meters.registry)["cloacina_store_errors_total operator"] == 3


async def test_a_package_that_was_heard_of_is_expected_until_its_end_was_heard_of() -> None:
    store = await SqlStore.open(":memory:")
    index = Index(store)
    await index.load()
    ref = Ref(CloacinaPackage.KIND, "default", "demo")
    expected = [index.expects(ref)]
    for change in (Change(ref=ref), Change(ref=ref, deleted=True), Change(ref=ref)):
        await index.saw(change)
        expected.append(index.expects(ref))
    await index.load()
    assert [*expected, index.expects(ref)] == [False, True, False, True, False]
    await store.close()
