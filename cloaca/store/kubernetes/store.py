"""The store on a Kubernetes API server: what reads and writes mean there, in requests."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any, TypeVar

from cloaca.errors import AlreadyExists, CloacaError, Conflict, Invalid, NotFound, StoreUnavailable
from cloaca.resources.meta import Resource
from cloaca.resources.names import PACKAGE_LABEL, label_value
from cloaca.resources.ref import API_VERSION, DEFAULT_NAMESPACE, Ref
from cloaca.resources.run import WorkflowRun
from cloaca.store.base import Change
from cloaca.store.kubernetes.api import CLOSED, Api, Object
from cloaca.store.kubernetes.cache import Cache, version_of
from cloaca.store.kubernetes.config import KubernetesUrl, find_server, parse_url
from cloaca.store.kubernetes.feed import Follower, Reflector, Saw, key_of
from cloaca.store.kubernetes.refusals import JSON_PATCH
from cloaca.store.oddities import Oddities
from cloaca.store.reading import read, readable
from cloaca.store.sql.rows import check, from_json, may_exist, metadata_columns, spec_json, status_json

R = TypeVar("R", bound=Resource[Any, Any])
T = TypeVar("T")

_Tasks = list[asyncio.Task[None]]
_Reflectors = list[Reflector]
_PACKAGE_FIELD = ".spec.packageRef.name"
_STRICT = {"fieldValidation": "Strict"}


class KubernetesStore:
    """Resources on one API server. Belongs to the event loop that opened it; others may call it too."""

    def __init__(self, api: Api, wanted: KubernetesUrl) -> None:
        self.api = api
        self.namespaces = wanted.namespaces
        self._loop = asyncio.get_running_loop()
        self._cache = Cache() if wanted.cached else None
        self._package = wanted.package
        self._followers: set[Follower] = set()
        self._reflectors: _Reflectors = []
        self._following: _Tasks = []
        self._closed = False
        self.oddities = Oddities()
        """The objects that cannot be read, and the namespaces that cannot be followed."""
        self._sets_aside = False

    @classmethod
    async def open(cls, url: str) -> KubernetesStore:
        """The store at ``url`` (see ``config.parse_url``). Raises StoreUnavailable."""
        wanted = parse_url(url)
        return await cls.over(Api(await asyncio.to_thread(find_server, wanted, os.environ)), wanted)

    @classmethod
    async def over(cls, api: Api, wanted: KubernetesUrl, *, sets_aside: bool = False) -> KubernetesStore:
        """The store of ``wanted`` on a client that others use too, which it closes. Raises StoreUnavailable.

        ``sets_aside``: namespaces that the server refuses to show are noted in ``oddities`` and tried again, instead of
        raising Forbidden or NotFound.
        """
        store = cls(api, wanted)
        store._sets_aside = sets_aside
        if store._cache is not None:
            try:
                store._reflectors, store._following = await store._follow(store._feed, names_only=False)
            except BaseException:
                await store.close()
                raise
        return store

    @property
    def heard_at(self) -> float:
        """When the most silent of our watches last told of anything, by the monotonic clock; now: there is none."""
        return min((reflector.heard_at for reflector in self._reflectors), default=time.monotonic())

    # --- reading

    async def get(self, kind: type[R], name: str, namespace: str = DEFAULT_NAMESPACE) -> R | None:
        return await self._here(self._get(kind, name, namespace))

    async def _get(self, kind: type[R], name: str, namespace: str) -> R | None:
        if self._cache is not None:
            text = self._cache.get(Ref(kind.KIND, namespace, name))
            return None if text is None else read(kind, text, self.oddities)
        found = await self._look(kind, Ref(kind.KIND, namespace, name))
        return None if found is None else read(kind, json.dumps(found), self.oddities)

    async def list(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[R, ...]:
        return tuple(await self.each(kind, namespace, labels))

    async def each(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[R]:
        return await self._here(self._each(kind, namespace, labels or {}))

    async def _each(self, kind: type[R], namespace: str | None, labels: Mapping[str, str]) -> Iterator[R]:
        if not may_exist(namespace=namespace, labels=labels):
            return iter(())
        if self._cache is not None:
            texts = self._cache.list(kind.KIND, namespace, labels)
            return readable(kind, texts, self.oddities)
        selector = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())} if labels else {}
        items: list[Object] = []
        for within in (namespace,) if namespace else self.namespaces or (None,):
            items += (await self.api.everything(_collection(kind, within), selector))[0]
        items.sort(key=key_of)
        texts = [json.dumps({"apiVersion": API_VERSION, "kind": kind.KIND, **item}).encode() for item in items]
        return readable(kind, texts, self.oddities)

    async def unfinished_runs(self) -> tuple[WorkflowRun, ...]:
        return tuple(run for run in await self.each(WorkflowRun) if not run.status.phase.finished)

    async def _look(self, kind: type[Resource[Any, Any]], ref: Ref) -> Object | None:
        """The object as the server has it now."""
        try:
            found = await self.api.request("GET", _path(kind, ref))
        except NotFound:
            return None
        if self._cache is not None:
            self._cache.saw(ref, found, False)
        return found

    # --- writing

    async def create(self, obj: R) -> R:
        return await self._here(self._create(obj))

    async def _create(self, obj: R) -> R:
        check(obj)
        spec = json.loads(spec_json(obj))
        status_json(obj)  # refused before anything is made
        for owner in obj.metadata.owner_references:
            if owner.api_version == API_VERSION:
                await self._owner_stands(obj, Ref(owner.kind, obj.metadata.namespace, owner.name), owner.uid)
        metadata = obj.metadata
        document = {
            "apiVersion": API_VERSION,
            "kind": obj.KIND,
            "metadata": {"name": metadata.name, "namespace": metadata.namespace, **_given(obj)},
            "spec": spec,
        }
        try:
            made = await self.api.request(
                "POST", _collection(type(obj), metadata.namespace), body=document, params=_STRICT
            )
        except AlreadyExists as error:
            if self._cache is not None:
                await self._look(type(obj), obj.ref)
            raise AlreadyExists(f"{obj.ref} exists already") from error
        except NotFound as error:
            raise NotFound(f"{obj.ref}: {error}: create the namespace, or install the kinds in crds/") from error
        except (Invalid, Conflict) as error:
            raise type(error)(f"{obj.ref}: {error}") from error
        if not _says_nothing(obj):
            created = _object(type(obj), made)
            return await self._write(created.model_copy(update={"status": obj.status}), status=True)
        return self._noted(type(obj), made)

    async def _owner_stands(self, obj: Resource[Any, Any], owner: Ref, uid: str) -> None:
        """Raise NotFound where the owner is gone: else the object would be made, and collected a moment later."""
        if self._cache is not None and self._cache.uid(owner) == uid:
            return
        found = await self._look(_kind(owner), owner)
        if found is None or found["metadata"]["uid"] != uid or found["metadata"].get("deletionTimestamp"):
            raise NotFound(f"{obj.ref}: its owner {owner.kind} {owner.name} is gone")

    async def update(self, obj: R) -> R:
        check(obj)
        return await self._here(self._write(obj, status=False))

    async def write_status(self, obj: R) -> R:
        return await self._here(self._write(obj, status=True))

    async def _write(self, obj: R, *, status: bool) -> R:
        """A patch of the parts that are ours: what others keep in metadata, such as finalizers, stays."""
        metadata = obj.metadata
        if (not status or _says_nothing(obj)) and not self._differs(obj, status=status):
            found = await self._look(type(obj), obj.ref)  # the server would count also a write of nothing new
            seen = None if found is None else _object(type(obj), found)
            if seen is not None and _same(seen, obj, status=status):
                return seen
        patch: list[Object] = []
        if metadata.uid:
            patch.append({"op": "test", "path": "/metadata/uid", "value": metadata.uid})
        if metadata.resource_version:
            patch.append({"op": "add", "path": "/metadata/resourceVersion", "value": metadata.resource_version})
        if status:
            patch.append({"op": "add", "path": "/status", "value": json.loads(status_json(obj))})
        else:
            patch.append({"op": "add", "path": "/spec", "value": json.loads(spec_json(obj))})
            for name, value in _given(obj).items():
                patch.append({"op": "add", "path": f"/metadata/{name}", "value": value})
                patch += [] if value else [{"op": "remove", "path": f"/metadata/{name}"}]  # also where it was not there
        path = f"{_path(type(obj), obj.ref)}/status" if status else _path(type(obj), obj.ref)
        try:
            written = await self.api.request("PATCH", path, body=patch, params=_STRICT, content_type=JSON_PATCH)
        except NotFound as error:
            if self._cache is not None:
                await self._look(type(obj), obj.ref)
            raise NotFound(f"{obj.ref} is gone") from error
        except (Conflict, Invalid) as error:
            found = await self._look(type(obj), obj.ref)  # it also brings the cache up to date, for whoever looks again
            if found is None or (metadata.uid and found["metadata"]["uid"] != metadata.uid):
                raise NotFound(f"{obj.ref} is gone") from error
            if isinstance(error, Conflict):
                raise Conflict(f"{obj.ref} changed since it was read: look again") from error
            raise Invalid(f"{obj.ref}: {error}") from error
        return self._noted(type(obj), written)

    def _differs(self, obj: Resource[Any, Any], *, status: bool) -> bool:
        """Whether it is known, without asking, that ``obj`` is not as it stands."""
        text = None if self._cache is None else self._cache.get(obj.ref)
        return text is not None and not _same(from_json(type(obj), text), obj, status=status)

    def uid(self, ref: Ref) -> str | None:
        """The uid of the object as the cache has it, also of one that cannot be read; None: it is not known."""
        return None if self._cache is None else self._cache.uid(ref)

    def _noted(self, kind: type[R], answered: Object) -> R:
        obj = _object(kind, answered)
        if self._cache is not None:
            self._cache.saw(obj.ref, answered, False)
        return obj

    async def delete(self, ref: Ref, uid: str | None = None) -> bool:
        return await self._here(self._delete(ref, uid))

    async def _delete(self, ref: Ref, uid: str | None) -> bool:
        options: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            answered = await self.api.request("DELETE", _path(_kind(ref), ref), body=options)
        except (NotFound, Conflict):  # Conflict: another uid
            return False
        gone = uid or (answered.get("details") or answered.get("metadata") or {}).get("uid")
        if self._cache is not None and gone:
            self._cache.deleted(ref, gone)
        return True

    # --- changes

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        return self._changes()

    @asynccontextmanager
    async def _changes(self) -> AsyncIterator[AsyncIterator[Change]]:
        if asyncio.get_running_loop() is not self._loop:
            raise CloacaError("follow a Kubernetes store from the event loop that opened it, or open another one")
        self._check_open()
        follower = Follower(0 if self._cache is None else self._cache.newest)
        tasks: _Tasks = []
        if self._cache is None:
            listed = False

            def saw(ref: Ref, obj: Object, gone: bool) -> None:
                if listed:
                    follower.tell(ref, gone, version_of(obj))

            _, tasks = await self._follow(saw, names_only=True)
            listed = True
        self._followers.add(follower)
        try:
            yield follower.changes()
        finally:
            self._followers.discard(follower)
            await _ended(tasks)

    async def _follow(
        self, saw: Callable[[Ref, Object, bool], None], *, names_only: bool
    ) -> tuple[_Reflectors, _Tasks]:
        """Every kind in every namespace that is looked at, from this moment on, and the tasks that follow them."""

        def of(kind: str) -> Saw:
            return lambda key, obj, gone: saw(Ref(kind, *key), obj, gone)

        reflectors = [
            Reflector(
                self.api,
                _collection(kind, namespace),
                of(kind.KIND),
                narrowing={} if self._package is None else _of_package(kind, self._package),
                names_only=names_only,
                kind=kind.KIND,
                oddities=self.oddities if self._sets_aside else None,
            )
            for kind in _stored_kinds().values()
            for namespace in self.namespaces or (None,)
        ]
        await asyncio.gather(*(reflector.begin() for reflector in reflectors))
        return reflectors, [asyncio.ensure_future(reflector.run()) for reflector in reflectors]

    def _feed(self, ref: Ref, obj: Object, gone: bool) -> None:
        """The watch told something: first the memory, then those who look into it."""
        if self._cache is not None:
            self._cache.saw(ref, obj, gone)
        for follower in self._followers:
            follower.tell(ref, gone, version_of(obj))

    # --- life

    async def close(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(), self._loop))
        else:
            await self._close()

    async def _close(self) -> None:
        self._closed = True
        for follower in self._followers:
            follower.close()
        await _ended(self._following)
        await self.api.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(CLOSED)

    async def _here(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives, done in the loop that the connections belong to."""
        if self._closed:
            work.close()
            raise StoreUnavailable(CLOSED)
        if asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


def _collection(kind: type[Resource[Any, Any]], namespace: str | None) -> str:
    within = "" if namespace is None else f"/namespaces/{namespace}"
    return f"/apis/{API_VERSION}{within}/{kind.PLURAL}"


@cache
def _stored_kinds() -> dict[str, type[Resource[Any, Any]]]:
    from cloaca.resources import STORED_KINDS  # a run asks for its own kind only, and need not load all

    return {kind.KIND: kind for kind in STORED_KINDS}


def _of_package(kind: type[Resource[Any, Any]], package: str) -> dict[str, str]:
    """Selects what is of that package, by what nobody can leave out: labels are only the operator's own to rely on."""
    if _PACKAGE_FIELD in kind.SELECTABLE:
        return {"fieldSelector": f"{_PACKAGE_FIELD[1:]}={package}"}
    if kind.KIND == "CloacinaPackage":
        return {"fieldSelector": f"metadata.name={package}"}
    return {"labelSelector": f"{PACKAGE_LABEL}={label_value(package)}"}  # ledgers, which the operator alone writes


def _kind(ref: Ref) -> type[Resource[Any, Any]]:
    kind = _stored_kinds().get(ref.kind)
    if kind is None:
        raise NotFound(f"{ref}: the kind is none of ours")
    return kind


def _path(kind: type[Resource[Any, Any]], ref: Ref) -> str:
    if not may_exist(name=ref.name, namespace=ref.namespace):  # it would be another path, perhaps that of all objects
        raise NotFound(f"{ref}: no object can be called so")
    return f"{_collection(kind, ref.namespace)}/{ref.name}"


def _given(obj: Resource[Any, Any]) -> Object:
    """The parts of metadata that whoever writes decides."""
    columns = metadata_columns(obj)
    names = {"labels": "labels", "annotations": "annotations", "owners": "ownerReferences"}
    return {name: json.loads(columns[column]) for column, name in names.items()}


def _says_nothing(obj: Resource[Any, Any]) -> bool:
    """Whether its status is what it is before anything was observed."""
    return bool(obj.status == type(obj.status)())


def _same(seen: R, obj: R, *, status: bool) -> bool:
    """Whether writing ``obj`` would change nothing of ``seen``, the same object in the same version."""
    mine, theirs = obj.metadata, seen.metadata
    if mine.uid not in ("", theirs.uid) or mine.resource_version not in ("", theirs.resource_version):
        return False
    if status:
        return bool(seen.status == obj.status)
    return _given(seen) == _given(obj) and spec_json(seen) == spec_json(obj)


def _object(kind: type[R], answered: Object) -> R:
    return from_json(kind, json.dumps(answered))


async def _ended(tasks: _Tasks) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
