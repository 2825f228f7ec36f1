"""A store for threads that may wait: what a run's record needs of it, without a detour over an event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar, cast

from pydantic import ValidationError

from cloaca.errors import NotFound
from cloaca.resources.meta import Resource
from cloaca.resources.recorded import RecordedRun, read_status
from cloaca.resources.ref import Ref
from cloaca.resources.run import RunStatus, WorkflowRun
from cloaca.store.base import Store
from cloaca.store.runs import RunStore
from cloaca.store.sql.rows import status_json

R = TypeVar("R", bound=Resource[Any, Any])
T = TypeVar("T")


class BlockingStore(RunStore, Protocol):
    """Where runs are recorded and made."""

    def create_here(self, obj: R, status: str) -> R:
        """Add ``obj`` with ``status``, as JSON, which what is returned lacks. Raises as ``Store.create``."""
        ...


def blocking(store: Store, loop: asyncio.AbstractEventLoop) -> BlockingStore:
    """``store`` for threads other than that of ``loop``, where it is asked if it has no way of its own."""
    if all(hasattr(type(store), name) for name in ("waits", "run_here", "create_here", "record_here")):
        return cast("BlockingStore", store)
    return _OnLoop(store, loop)


def recorded(run: WorkflowRun) -> RecordedRun:
    """``run`` as its own process reads it."""
    metadata, spec = run.metadata, run.spec
    return RecordedRun(
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        version=metadata.resource_version,
        generation=metadata.generation,
        workflow=spec.workflow,
        context=spec.context,
        cancel=spec.cancel,
        active_deadline_seconds=spec.active_deadline_seconds,
        status=read_status(json.loads(status_json(run))),
    )


class _OnLoop:
    waits = True

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._seen: dict[Ref, WorkflowRun] = {}  # those that are recorded here

    def run_here(self, name: str, namespace: str) -> RecordedRun | None:
        return self._ask(self._run(name, namespace))

    async def _run(self, name: str, namespace: str) -> RecordedRun | None:
        found = await self._store.get(WorkflowRun, name, namespace)
        if found is None:
            return None
        self._seen[found.ref] = found
        return recorded(found)

    def create_here(self, obj: R, status: str) -> R:
        return self._ask(self._store.create(obj.model_copy(update={"status": _status(status)})))

    def record_here(self, ref: Ref, uid: str, version: str, status: str) -> str:
        return self._ask(self._record(ref, uid, version, status))

    async def _record(self, ref: Ref, uid: str, version: str, status: str) -> str:
        seen = self._seen.get(ref) or await self._store.get(WorkflowRun, ref.name, ref.namespace)
        if seen is None:
            raise NotFound(f"{ref} is gone")
        metadata = seen.metadata.model_copy(update={"uid": uid, "resource_version": version})
        mine = seen.model_copy(update={"metadata": metadata, "status": _status(status)})
        return (await self._store.write_status(mine)).metadata.resource_version

    def close_here(self) -> None:
        self._ask(self._store.close())

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()


def _status(text: str) -> RunStatus:
    """The status, with what a newer version added."""
    try:
        return RunStatus.model_validate_json(text)
    except ValidationError:
        return RunStatus.model_validate_json(text, extra="allow")
