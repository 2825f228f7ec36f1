"""What every store of a laptop must do with archives. On a cluster they are in ConfigMaps of their package."""

from __future__ import annotations

from collections.abc import AsyncIterator

import postgres_server
import pytest

from cloaca.store import ArchiveStore, open_archives


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ArchiveStore]:
    """An empty store."""
    made = await open_archives(":memory:" if request.param == "memory" else postgres_server.shared().url())
    yield made
    await made.close()


async def test_archives_are_kept_under_their_digest(store: ArchiveStore) -> None:
    digest = await store.put_archive(b"some bytes")
    assert digest == "sha256:0d22cdcc10e6d049dbe1af5123d50873fdfc1a4f58306e58cb6241be9472014d"
    assert await store.put_archive(b"some bytes") == digest
    other = await store.put_archive(bytes(range(256)) * 1000)
    assert await store.get_archive(digest) == b"some bytes"
    assert await store.get_archive(other) == bytes(range(256)) * 1000
    assert await store.list_archives() == tuple(sorted((digest, other)))
    assert await store.delete_archive(digest)
    assert not await store.delete_archive(digest)
    assert await store.get_archive(digest) is None


async def test_an_archive_may_be_empty_or_unknown(store: ArchiveStore) -> None:
    digest = await store.put_archive(b"")
    assert digest == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert await store.get_archive(digest) == b""
    assert await store.get_archive("sha256:" + "0" * 64) is None


@pytest.mark.parametrize(
    "digest", ["sha256:\0", "\0", "\ud800", "", "..", "sha256:E3", f"sha256:{'0' * 64}\n"], ids=ascii
)
async def test_what_is_no_digest_names_no_archive(store: ArchiveStore, digest: str) -> None:
    kept = await store.put_archive(b"")
    assert await store.get_archive(digest) is None
    assert await store.delete_archive(digest) is False
    assert await store.list_archives() == (kept,)
