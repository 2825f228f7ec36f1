"""Speak HTTP to an API server: requests, pages and watches, with its refusals as our errors. Knows no kind."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cloaca.errors import StoreError, StoreUnavailable
from cloaca.store.kubernetes.config import Server
from cloaca.store.kubernetes.documents import parsed
from cloaca.store.kubernetes.http import Answer, Client, NotConnected
from cloaca.store.kubernetes.refusals import PAUSES, TIMEOUT, Again, Expired, away, refused

Object = dict[str, Any]

PAGE = 500
SILENCE = 120  # seconds after which the server ends a watch, so that a dead connection is noticed
LINE_LIMIT = 16 * 1024 * 1024  # an object has 1.5 MiB at most

NAMES_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
NAMES_ONLY_EVENTS = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
CLOSED = "the store is closed: open it anew"


class Page(NamedTuple):
    """A part of a list."""

    items: Sequence[Object]
    version: str  # of the whole list
    first: bool  # what came before, if anything, is void


class Api:
    """One API server. Belongs to the event loop in which it was made."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._client = Client(server.url, server.tls, connect=TIMEOUT)
        self._base = urlsplit(server.url).path.rstrip("/")  # of an API server behind a gateway
        self.requests: Counter[tuple[str, str]] = Counter()
        """(verb, resource) → how often it was asked; ``WATCH`` counts beginnings."""
        self.answered_at = time.monotonic()
        """When the server last said anything, refusals included."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """The answer. Raises AlreadyExists, NotFound, Conflict, Invalid, Expired, StoreUnavailable.

        A read is tried again while the server is away or busy; a write only where it cannot have been taken.
        """
        data = None if body is None else json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        headers = {"Accept": accept, **({} if data is None else {"Content-Type": content_type})}
        for pause in (*PAUSES, None):
            try:
                return await self._once(method, path, data, params, headers)
            except Again as again:
                await asyncio.sleep(again.pause(method, pause))
        raise AssertionError("unreachable")

    async def _once(
        self, method: str, path: str, data: bytes | None, params: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Object:
        self._open()
        self.requests[(method, resource_of(path))] += 1
        try:
            async with self._client.ask(
                method,
                f"{self._base}{path}",
                data=data,
                params=params,
                headers=await self._authorized(headers),
                total=TIMEOUT,
            ) as answer:
                text = await answer.read()
                self.answered_at = time.monotonic()
                if answer.status >= 400:
                    raise refused(answer.status, text, path, answer.headers.get("retry-after"))
        except (asyncio.TimeoutError, OSError) as error:
            self._open()
            raise Again(self._away(error), untaken=isinstance(error, NotConnected)) from error
        answered: Object = parsed(text)
        return answered

    async def everything(
        self, path: str, params: Mapping[str, str] | None = None, accept: str = "application/json"
    ) -> tuple[list[Object], str]:
        """Every object, and the resource version of the list. Raises as ``request``, but never Expired."""
        items: list[Object] = []
        version = ""
        async for page in self.pages(path, params, accept):
            if page.first:
                items.clear()
            items += page.items
            version = page.version
        return items, version

    async def pages(
        self, path: str, params: Mapping[str, str] | None = None, accept: str = "application/json"
    ) -> AsyncIterator[Page]:
        """Every object, some at a time; from the start where the pages took longer than the server keeps its past.

        Raises as ``request``, but never Expired.
        """
        for _ in PAUSES:
            asked = {"limit": str(PAGE), **(params or {})}
            first = True
            try:
                while True:
                    page = await self.request("GET", path, params=asked, accept=accept)
                    metadata = page["metadata"]
                    yield Page(page["items"] or (), str(metadata["resourceVersion"]), first=first)
                    if not metadata.get("continue"):
                        return
                    asked["continue"] = metadata["continue"]
                    first = False
            except Expired:
                continue
        raise StoreUnavailable(f"{self.server.url}: the list of {path} expired again and again before its last page")

    async def watch(
        self, path: str, params: Mapping[str, str], accept: str = "application/json"
    ) -> AsyncGenerator[Object, None]:
        """The events after ``resourceVersion``, bookmarks too; ends now and then. Raises Expired, StoreUnavailable."""
        asked = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(SILENCE), **params}
        self._open()
        self.requests[("WATCH", resource_of(path))] += 1
        try:
            async with self._client.ask(
                "GET",
                f"{self._base}{path}",
                params=asked,
                headers=await self._authorized({"Accept": accept}),
                silence=SILENCE + TIMEOUT,
            ) as answer:
                if answer.status >= 400:
                    raise refused(answer.status, await answer.read(), path, answer.headers.get("retry-after"))
                async for line in _lines(answer):
                    event: Object = parsed(line)
                    if event["type"] == "ERROR":
                        raise refused(int(event["object"].get("code", 500)), line, path, None, event["object"])
                    yield event
        except Again as again:
            raise again.error from again.__cause__
        except StoreError:  # some are ValueErrors, which would be taken for a broken answer
            raise
        except (asyncio.TimeoutError, OSError, ValueError) as error:
            self._open()
            raise self._away(error) from error

    async def stream(self, path: str, params: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The answer as it comes, such as a log that is followed; may be silent for long. Raises as ``request``."""
        self._open()
        self.requests[("GET", resource_of(path))] += 1
        try:
            async with self._client.ask(
                "GET", f"{self._base}{path}", params=params, headers=await self._authorized({})
            ) as answer:
                if answer.status >= 400:
                    raise refused(answer.status, await answer.read(), path, None)
                async for piece in answer.pieces():
                    yield piece
        except Again as again:
            raise again.error from again.__cause__
        except (asyncio.TimeoutError, OSError) as error:
            self._open()
            raise self._away(error) from error

    async def _authorized(self, headers: Mapping[str, str]) -> dict[str, str]:
        token = await asyncio.to_thread(self.server.token) if self.server.slow_token else self.server.token()
        who = {} if token is None else {"Authorization": f"Bearer {token}"}
        return {"User-Agent": "cloacina", **headers, **who}

    def _open(self) -> None:
        if self._client.closed:
            raise StoreUnavailable(CLOSED)

    def _away(self, error: Exception) -> StoreUnavailable:
        said = "no answer in time" if isinstance(error, asyncio.TimeoutError) else str(error) or type(error).__name__
        return away(self.server.url, said)

    async def close(self) -> None:
        """Let go of the connections. Idempotent."""
        await self._client.close()


async def _lines(answer: Answer) -> AsyncIterator[bytes]:
    """Lines of any length up to the limit: an object may be longer than what a reader takes for one."""
    held = b""
    async for piece in answer.pieces():
        *whole, rest = (held + piece).split(b"\n")
        for line in whole:
            yield line
        held = rest
        if len(held) > LINE_LIMIT:
            raise ValueError(f"one event of more than {LINE_LIMIT} bytes")


def resource_of(path: str) -> str:
    """The plural in a path, with the subresource, for counting.

    >>> resource_of("/apis/batch/v1/namespaces/team/jobs/run-1")
    'jobs'
    """
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join((rest[0], rest[2])) if len(rest) > 2 else rest[0] if rest else path
