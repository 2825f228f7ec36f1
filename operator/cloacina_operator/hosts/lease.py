"""Hold a Lease, so that one of several operators leads; and see it come back through a watch. Reconciles nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import datetime, timezone
from typing import Any

from cloaca.errors import AlreadyExists, CloacaError, Conflict, NotFound
from cloaca.resources.ref import rfc3339
from cloaca.store.kubernetes.api import Api
from cloacina_operator.core.leadership import (
    LeaseTimes,
    Seen,
    Step,
    next_step,
    observed,
    pause_before_retry,
    watch_is_dead,
)
from cloacina_operator.executors.watched import Object, Watched
from cloacina_operator.hosts.counted import parsed, written

log = logging.getLogger("cloacina.lease")


COUNTED_ANNOTATION = "cloacina.io/runs-counted-until"


class LeadershipLost(CloacaError):
    """The Lease could not be renewed in time: another operator may lead by now."""


class Lease:
    """One Lease and one candidate. Belongs to one event loop."""

    def __init__(self, api: Api, *, namespace: str, name: str, me: str, times: LeaseTimes) -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._me = me
        self._times = times
        self._object: Object | None = None
        self._seen: Seen | None = None
        self._moved_at = self._echoed_at = time.monotonic()
        self.leading = False
        self.counted_until: datetime | None = None
        """Up to when runs that ended were counted, as the leader before us left it; None: it left nothing."""
        self.watched = Watched(api, [self._path], {"fieldSelector": f"metadata.name={name}"}, self._echo)

    def healthy(self) -> bool:
        """Whether what is written comes back through the watch."""
        return not watch_is_dead(self._moved_at, self._echoed_at)

    async def acquire(self) -> None:
        """Return when we lead."""
        while True:
            try:
                await self._look()
                if next_step(self._me, self._seen, time.monotonic()) is not Step.WAIT:
                    await self._write(self._me)
                    self.leading = True
                    log.info("%s leads", self._me)
                    return
            except (Conflict, AlreadyExists):
                continue  # another one was quicker: look who
            except CloacaError as error:
                log.warning("the lease cannot be read or taken: %s", error)
            await asyncio.sleep(self._times.retry_period)

    def keep_counted(self, until: datetime) -> None:
        """Leave ``until`` to the next leader, with the next renewal or the release."""
        self.counted_until = until

    async def keep(self) -> None:
        """Renew until cancelled. Raises LeadershipLost, in time for us to stop before another one begins."""
        failing_since: float | None = None  # None: the last renewal succeeded
        pause = self._times.retry_period
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            if await self._renewed():
                failing_since, pause = None, self._times.retry_period
                continue
            failing_since = began if failing_since is None else failing_since
            left = pause_before_retry(failing_since, began, self._times)
            if left is None:
                self.leading = False
                raise LeadershipLost("the lease was not renewed in time; another operator may lead")
            pause = max(0.0, began + left - time.monotonic())

    async def _renewed(self) -> bool:
        """Whether the Lease could be renewed. Raises LeadershipLost if another one holds it."""
        try:
            await asyncio.wait_for(self._write(self._me), self._times.retry_period)
        except (Conflict, NotFound) as error:
            await self._reread(error)
        except (CloacaError, asyncio.TimeoutError) as error:
            log.warning("the lease cannot be renewed: %s", error or "no answer")
        else:
            return True
        return False

    async def release(self) -> None:
        """Let another one lead at once. Best effort."""
        if self.leading:
            self.leading = False
            try:
                await self._write("")
            except CloacaError as error:
                log.warning("the lease is not released, it runs out by itself: %s", error)

    async def _reread(self, error: CloacaError) -> None:
        """A write lost its answer, or somebody took the Lease."""
        try:
            await self._look()
        except CloacaError:
            return
        if self._seen is not None and self._seen.holder not in ("", self._me):
            self.leading = False
            raise LeadershipLost(f"{self._seen.holder} leads now") from error

    async def _look(self) -> None:
        try:
            self._take_note(await self._api.request("GET", f"{self._path}/{self._name}"))
        except NotFound:
            self._object, self._seen = None, None

    async def _write(self, holder: str) -> None:
        now = rfc3339(datetime.now(timezone.utc))
        known: dict[str, Any] = {} if self._object is None else self._object
        spec = dict(known.get("spec", {}))
        if spec.get("holderIdentity") != holder:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        spec |= {"holderIdentity": holder, "renewTime": now, "leaseDurationSeconds": int(self._times.duration)}
        metadata: dict[str, Any] = {"name": self._name}
        if self.counted_until is not None:
            metadata["annotations"] = {COUNTED_ANNOTATION: written(self.counted_until)}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        if self._object is None:
            self._take_note(await self._api.request("POST", self._path, body=body))
            return
        metadata["resourceVersion"] = self._object["metadata"]["resourceVersion"]
        self._take_note(await self._api.request("PUT", f"{self._path}/{self._name}", body=body))

    def _take_note(self, lease: Object) -> None:
        self._object = lease
        if not self.leading:
            kept = (lease.get("metadata", {}).get("annotations") or {}).get(COUNTED_ANNOTATION)
            self.counted_until = None if kept is None else parsed(kept)
        spec, now = lease.get("spec", {}), time.monotonic()
        before = self._seen
        duration = spec.get("leaseDurationSeconds") or self._times.duration  # as its holder counts
        self._seen = observed(before, spec.get("holderIdentity") or "", spec.get("renewTime") or "", duration, now)
        if self._seen is not before:
            self._moved_at = now

    def _echo(self, _before: Object | None, _after: Object | None) -> None:
        self._echoed_at = time.monotonic()
