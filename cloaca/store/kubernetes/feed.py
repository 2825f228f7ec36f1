"""Follow collections of objects by list and watch, and tell followers which of them changed. Writes nothing."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing

from cloaca.errors import Forbidden, Invalid, NotFound, StoreUnavailable
from cloaca.resources.ref import Ref
from cloaca.store.base import Change
from cloaca.store.kubernetes.api import CLOSED, NAMES_ONLY, NAMES_ONLY_EVENTS, Api, Object
from cloaca.store.kubernetes.refusals import Expired
from cloaca.store.oddities import Oddities, Stage, uid_in

log = logging.getLogger("cloacina.store")

PAUSES = (0.1, 0.5, 1.5, 5.0)  # seconds before the next try while the server is away
ASIDE = (1.0, 5.0, 15.0, 60.0)  # seconds before the next try while the server refuses this collection

Key = tuple[str, str]  # namespace, name
Saw = Callable[[Key, Object, bool], None]
"""Called with where an object stands, what was seen of it, and whether it is gone."""


class Follower:
    """What one reader of changes has not been told yet. Belongs to one event loop."""

    def __init__(self, since: int) -> None:
        """``since``: the resource version of this moment, as far as is known; what is older is not told."""
        self._since = since
        self._pending: dict[Ref, bool] = {}
        self._news = asyncio.Event()
        self._closed = False

    def tell(self, ref: Ref, deleted: bool, version: int) -> None:
        """``ref`` changed, at that resource version; what was pending about it is said by this too."""
        if version <= self._since:
            return
        self._pending.pop(ref, None)
        self._pending[ref] = deleted
        self._news.set()

    def close(self) -> None:
        """There is nothing more to come."""
        self._closed = True
        self._news.set()

    async def changes(self) -> AsyncIterator[Change]:
        """Every change, as it comes. Raises StoreUnavailable when the store is closed."""
        while True:
            while self._pending:
                ref = next(iter(self._pending))
                yield Change(ref=ref, deleted=self._pending.pop(ref))
            if self._closed:
                raise StoreUnavailable(CLOSED)
            self._news.clear()
            await self._news.wait()


class Reflector:
    """The objects of one collection, by name and resource version, kept up to date for as long as ``run`` runs."""

    def __init__(
        self,
        api: Api,
        path: str,
        saw: Saw,
        *,
        selector: Mapping[str, str] | None = None,
        narrowing: Mapping[str, str] | None = None,
        names_only: bool = False,
        kind: str = "",
        oddities: Oddities | None = None,
    ) -> None:
        """``selector``: labelSelector and fieldSelector, which the server keeps to. ``narrowing``: the same, where it
        does no harm to see more: a server that cannot select so is asked for everything.

        ``kind``: of the objects, for messages. ``oddities``: where objects go whose ``saw`` raises, and the collection
        itself while the server answers 403 or 404; None: such an answer is raised.
        """
        self._api = api
        self._path = path
        self._call = saw
        self._kind = kind or path.rpartition("/")[2]
        self._api_version = "/".join(path.strip("/").split("/")[1:3]) if path.startswith("/apis/") else "v1"
        self._oddities = oddities
        self._selector = dict(selector or {})
        self._narrowing = dict(narrowing or {})
        self._list_accept, self._watch_accept = (
            (NAMES_ONLY, NAMES_ONLY_EVENTS) if names_only else ("application/json", "application/json")
        )
        self._known: dict[Key, str] = {}
        self._version = ""
        self.loaded = asyncio.Event()
        """Set when everything was seen once."""
        self.heard_at = time.monotonic()
        """When the server last told of anything, bookmarks and the ends of watches included."""

    async def begin(self) -> None:
        """As ``load``; but a collection that the server refuses is set aside, if there is a place for such."""
        try:
            await self.load()
        except (Forbidden, NotFound) as error:
            self._put_aside(error)

    def _put_aside(self, error: Forbidden | NotFound) -> None:
        """The server answers, and refuses: others need not wait for this collection, which is tried again."""
        if self._oddities is None:
            raise error
        self._oddities.set_aside(self._path, str(error))
        self.heard_at = time.monotonic()
        self._version = ""  # listed anew: what changed meanwhile is not known
        self.loaded.set()

    def _saw(self, key: Key, obj: Object, gone: bool) -> None:
        """Tell of one object. The only place from which callbacks of watches are called: none of them ends a watch."""
        if self._oddities is None:
            self._call(key, obj, gone)
            return
        ref = Ref(self._kind, *key)
        with self._oddities.guard(ref, Stage.WATCH, uid_in(obj), self._api_version):
            self._call(key, obj, gone)
            if gone:
                self._oddities.gone(ref)

    async def load(self) -> None:
        """List everything; tell of what is new, other or gone since the last time. Raises StoreUnavailable."""
        try:
            await self._load()
        except Invalid as error:
            if not self._narrowing:
                raise
            self._see_more(error)
            await self._load()

    def _see_more(self, error: Invalid) -> None:
        """Kubernetes selects by fields of ours since 1.31, and where the CRD says by which."""
        log.info("%s: everything is followed, as the API server cannot select from it: %s", self._path, error)
        self._narrowing = {}
        self._version = ""

    async def _load(self) -> None:
        gone: set[Key] = set()
        version = ""
        async for page in self._api.pages(self._path, {**self._selector, **self._narrowing}, self._list_accept):
            self.heard_at = time.monotonic()
            if page.first:
                gone = set(self._known)
            version = page.version
            for item in page.items:
                key, seen = key_of(item), item["metadata"]["resourceVersion"]
                gone.discard(key)
                if self._known.get(key) != seen:
                    self._known[key] = seen
                    self._saw(key, item, False)
        for key in gone:
            del self._known[key]
            self._saw(key, {"metadata": {"resourceVersion": version}}, True)  # gone by then, nobody knows when
        self._version = version
        if self._oddities is not None:
            self._oddities.followed(self._path)
        self.loaded.set()

    async def run(self) -> None:
        """Follow until cancelled; while the server is away, try again."""
        tries = 0
        while True:
            try:
                await self._watch()
                self.heard_at = time.monotonic()
                tries = 0
            except Expired:
                log.debug("%s: the watch fell behind, listing anew", self._path)
                self._version = ""
            except Invalid as error:
                if not self._narrowing:
                    raise
                self._see_more(error)
            except (Forbidden, NotFound) as error:
                self._put_aside(error)
                await asyncio.sleep(ASIDE[min(tries, len(ASIDE) - 1)])
                tries += 1
            except StoreUnavailable as error:
                log.warning("%s cannot be followed: %s", self._path, error)
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1

    async def _watch(self) -> None:
        if not self._version:
            await self.load()
        asked = {**self._selector, **self._narrowing, "resourceVersion": self._version}
        async with aclosing(self._api.watch(self._path, asked, self._watch_accept)) as events:
            async for event in events:
                obj, what = event["object"], event["type"]
                self._version = obj["metadata"]["resourceVersion"]
                self.heard_at = time.monotonic()
                if what == "BOOKMARK":
                    continue
                key = key_of(obj)
                if what == "DELETED":
                    self._known.pop(key, None)
                else:
                    self._known[key] = self._version
                self._saw(key, obj, what == "DELETED")


def key_of(obj: Object) -> Key:
    """Where it stands."""
    return (sys.intern(obj["metadata"].get("namespace", "")), obj["metadata"]["name"])  # thousands in one namespace
