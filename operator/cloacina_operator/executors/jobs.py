"""Pods: a poller is a Deployment, a run a Job, an inspection a Job. Makes and deletes them.

Decides nothing about runs and packages: what is there is watched by ``sightings``, what a pod's state means is said by
``core.trouble``, what to make by ``core.manifests``.

Everything that is made has an owner, so that it goes with it, also while no operator runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from cloaca.errors import AlreadyExists, Conflict, Forbidden, ImportCrashed, Invalid, LoadError, NotFound, StoreError
from cloaca.packages.archive import Limits, read_archive
from cloaca.packages.inventory import Inventory
from cloaca.processes.report import read_report
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.resources.conditions import PodReason
from cloaca.resources.names import (
    CLUSTER_PACKAGE_LIMIT,
    archive_part_name,
    label_value,
    poller_name,
)
from cloaca.store import Store
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.feed import key_of
from cloaca.store.oddities import Oddities
from cloacina_operator.core import manifests
from cloacina_operator.core.manifests import Component, Manifest, PodSettings
from cloacina_operator.core.packages import Hindrance, PollerState
from cloacina_operator.core.runs import Execution
from cloacina_operator.core.trouble import attempt_of, last_words, of_deployment, of_refusals
from cloacina_operator.executors.sightings import (
    TEMPLATE_ANNOTATION,
    Sightings,
    component_of,
    digest_of,
    generation_of,
)
from cloacina_operator.executors.watched import Object, controller_of, owner_uid, uid_of

log = logging.getLogger("cloacina.jobs")

INSPECTIONS = 3  # pods for one import, where the cluster takes them away
TRY_AGAIN = timedelta(seconds=25)  # before a Job that was refused is tried again; runs that are hindered ask after 30
_LOST = frozenset({PodReason.EVICTED, PodReason.POD_DELETED})
_BACKGROUND = {"propagationPolicy": "Background"}


class Jobs:
    """The executor of a cluster. Belongs to one event loop; ``run()`` follows the cluster."""

    def __init__(
        self,
        *,
        api: Api,
        store: Store,
        settings: PodSettings,
        limits: Limits,
        namespaces: Sequence[str],
        changed: Callable[[Ref], None],
        now: Callable[[], datetime],
        known_uid: Callable[[Ref], str | None] | None = None,
        oddities: Oddities | None = None,
    ) -> None:
        """``namespaces``: the only ones that are looked at; empty: all. ``known_uid``, ``oddities``: see Sightings."""
        self._api = api
        self._store = store
        self._settings = settings
        self._limits = limits
        self._changed = changed
        self._now = now
        self._seen = Sightings(api, namespaces, changed, now, known_uid, oddities)
        self._refused: dict[Ref, Hindrance] = {}  # what the server did not let us make
        self._refused_at: dict[Ref, datetime] = {}
        self._parts: dict[Ref, dict[tuple[str, str], int]] = {}  # package -> its uid, digest -> ConfigMaps of it
        self._imports: dict[Ref, tuple[str, str]] = {}  # package -> its inspection Job
        self.started_runs = 0
        """Jobs made for attempts of runs."""

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        await self._seen.run()

    async def listed(self) -> None:
        """Return when everything was seen once: before that, what is not known may still be there."""
        await self._seen.listed()

    @property
    def heard_at(self) -> float:
        """When the most silent of our watches last told of anything, by the monotonic clock."""
        return self._seen.heard_at

    # --- packages

    async def import_package(self, package: CloacinaPackage, digest: str) -> Inventory:
        data = await self._archive(digest)
        manifest = (await asyncio.to_thread(read_archive, data, self._limits)).manifest
        parts = await self._ensure_parts(package, digest, data)
        wanted = manifests.inspection_job(package, digest, parts, self._settings)
        key = key_of(wanted)
        self._imports[package.ref] = key
        await self._delete_other_inspections(package, wanted)
        trouble = None
        try:
            for _ in range(INSPECTIONS):
                words, trouble = await self._inspected(package, wanted)
                if trouble is None or trouble.reason not in _LOST:
                    break
                await self._delete_job(*key)
            if trouble is not None:
                raise ImportCrashed(f"the inspection ended without a report: {trouble.message}")
            inventory = await asyncio.to_thread(read_report, words, manifest)
            await self._delete_job(*key)
            return inventory
        finally:
            if self._imports.get(package.ref) == key:  # else another inspection of the package has begun
                del self._imports[package.ref]
            self._seen.news.pop(key, None)

    async def _delete_other_inspections(self, package: CloacinaPackage, wanted: Manifest) -> None:
        """Those for an older spec of the package: nobody asks for what they say any more."""
        for job in list(self._seen.our_jobs()):
            ours = owner_uid(job) == package.metadata.uid and component_of(job) == Component.INSPECTION
            if ours and key_of(job) != key_of(wanted):
                await self._delete_job(*key_of(job))

    async def _inspected(self, package: CloacinaPackage, wanted: Manifest) -> tuple[str, Hindrance | None]:
        """The last words of the inspection, made if it is not there; with what went wrong where it left none."""
        namespace, name = key_of(wanted)
        news = self._seen.news.setdefault((namespace, name), asyncio.Event())
        while True:
            news.clear()
            job = self._seen.job(namespace, name)
            if job is None and self._seen.jobs.get(namespace, name) is not None:
                raise LoadError(f"a Job {name!r} exists that is not ours: delete or rename it")
            if job is None:
                try:
                    self._seen.jobs.saw(await self._create("/apis/batch/v1", "jobs", wanted))
                except AlreadyExists:
                    pass  # an operator before us made it; the watch will tell
                except (Invalid, Forbidden) as error:
                    raise LoadError(f"no inspection can be made of spec.podTemplate: {error}") from error
                self._changed(package.ref)
            else:
                for pod in self._seen.pods_of[uid_of(job)].values():
                    ended, words, trouble = last_words(pod)
                    if ended:
                        return words, trouble
                seen = self._seen.job_execution(job)
                if seen.ended_at is not None:
                    return "", Hindrance(reason=seen.reason or PodReason.POD_DELETED, message=seen.how)
            await news.wait()

    def inspection(self, package: Ref) -> Hindrance | None:
        key = self._imports.get(package)
        job = None if key is None else self._seen.job(*key)
        if job is None:
            return None
        for pod in self._seen.pods_of[uid_of(job)].values():
            return last_words(pod)[2]
        return of_refusals(self._seen.refusals[uid_of(job)].values())

    async def discard(self, package: CloacinaPackage, digest: str) -> None:
        await self._prune(package, {digest})

    async def remove_package(self, package: Ref) -> None:
        """Everything of it is owned by it, and goes with it."""
        self._refused.pop(package, None)
        self._refused_at.pop(package, None)
        self._parts.pop(package, None)
        self._seen.poller_pods.pop((package.namespace, label_value(package.name)), None)

    async def _archive(self, digest: str) -> bytes:
        data = await self._store.get_archive(digest)
        if data is None:
            raise LoadError(f"the archive {digest} is not in the store any more: deploy the package again")
        return data

    async def _ensure_parts(self, package: CloacinaPackage, digest: str, data: bytes | None = None) -> int:
        """Have the archive in the package's namespace; returns in how many parts."""
        known = self._parts.setdefault(package.ref, {})
        if (package.metadata.uid, digest) in known:
            return known[(package.metadata.uid, digest)]
        parts = manifests.archive_parts(package, digest, await self._archive(digest) if data is None else data)
        for part in parts:
            try:
                await self._create("/api/v1", "configmaps", part)
            except AlreadyExists:
                await self._check_part(package, part)
        known[(package.metadata.uid, digest)] = len(parts)
        return len(parts)

    async def _check_part(self, package: CloacinaPackage, part: Manifest) -> None:
        """Raise LoadError if the ConfigMap of that name is not one that we made for this package: immutable, and named
        by its content."""
        namespace, name = key_of(part)
        try:
            found = await self._api.request("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        except NotFound:
            raise Conflict(f"ConfigMap {namespace}/{name} was deleted meanwhile: look again") from None
        if owner_uid(found) != package.metadata.uid or not found.get("immutable"):
            raise LoadError(f"a ConfigMap {name!r} exists that is not ours: delete or rename it")

    async def _prune(self, package: CloacinaPackage, digests: set[str]) -> None:
        """Drop the parts of archives that nothing of the package uses; who needs one later makes it again."""
        busy = {digest_of(job) for job in self._seen.our_jobs() if uid_of(job) in self._seen.active}
        known = self._parts.get(package.ref, {})
        for uid, digest in [key for key in known if key[0] == package.metadata.uid]:
            if digest not in digests or digest in busy:
                continue
            count = known.pop((uid, digest))
            for part in range(count):
                name = archive_part_name(package.name, digest, part)
                await self._delete("/api/v1", "configmaps", package.metadata.namespace, name)

    # --- pollers

    def poller(self, package: Ref) -> PollerState | None:
        refused = self._refused.get(package)
        deployment = self._seen.deployment(package.namespace, poller_name(package.name))
        if deployment is None:
            return None if refused is None else PollerState(digest="", failure=refused.message, reason=refused.reason)
        digest = digest_of(deployment)
        trouble = refused or of_deployment(deployment, self._seen.pods_of_poller(deployment, package))
        if trouble is not None:
            return PollerState(digest=digest, failure=trouble.message, reason=trouble.reason)
        status = deployment.get("status", {})
        current = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        polls = current and status.get("updatedReplicas", 0) > 0 and status.get("availableReplicas", 0) > 0
        return PollerState(digest=digest, starting=not polls)

    async def ensure_poller(self, package: CloacinaPackage, digest: str) -> None:
        if len(package.name) > CLUSTER_PACKAGE_LIMIT:
            said = f"the name has {len(package.name)} characters, on a cluster it may have {CLUSTER_PACKAGE_LIMIT}"
            self._refuse(package.ref, PodReason.NAME_TOO_LONG, f"{said}: deploy it under a shorter one")
            return
        known = self._seen.deployment(package.metadata.namespace, poller_name(package.name))
        if (
            known is not None
            and digest_of(known) == digest
            and generation_of(known) == _wanted(package, self._settings)
        ):
            return
        parts = await self._ensure_parts(package, digest)
        wanted = manifests.poller_deployment(package, digest, parts, self._settings)
        wanted["metadata"]["annotations"][TEMPLATE_ANNOTATION] = _wanted(package, self._settings)
        try:
            if known is None:
                made = await self._create("/apis/apps/v1", "deployments", wanted)
            else:
                wanted["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
                made = await self._replace("/apis/apps/v1", "deployments", wanted)
        except AlreadyExists:
            said = f"a Deployment {poller_name(package.name)!r} exists that is not ours: delete or rename it"
            self._refuse(package.ref, PodReason.NAME_TAKEN, said)
            return
        except (Invalid, Forbidden) as error:
            self._refuse(package.ref, PodReason.POD_FORBIDDEN, f"spec.podTemplate gives no valid poller: {error}")
            return
        except (Conflict, NotFound):
            self._changed(package.ref)  # it changed meanwhile: look again
            return
        self._refused.pop(package.ref, None)
        self._seen.deployments.saw(made)
        if known is not None and digest_of(known) != digest:
            await self._prune(package, {digest_of(known)})

    async def stop_poller(self, package: Ref) -> None:
        self._refused.pop(package, None)
        name = poller_name(package.name)
        known = self._seen.deployment(package.namespace, name)
        if known is not None and uid_of(known) not in self._seen.stopped:
            self._seen.stopped.add(uid_of(known))
            await self._delete("/apis/apps/v1", "deployments", package.namespace, name, uid_of(known))

    # --- runs

    def execution(self, run: Ref) -> Execution | None:
        job = self._seen.job(run.namespace, run.name)
        if job is not None:
            return self._seen.job_execution(job)
        for pod in self._seen.run_pods.get((run.namespace, run.name), {}).values():
            if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                return Execution(attempt=attempt_of(pod))  # its Job was deleted; it is about to end
        refused = self._refused.get(run)
        if refused is None or self._now() >= self._refused_at[run] + TRY_AGAIN:
            return None  # nothing is there: it is tried (again)
        return Execution(attempt=1 << 30, how=refused.message, reason=refused.reason)

    def running(self) -> Collection[Ref]:
        return self._seen.active.values()

    async def start_run(self, run: WorkflowRun, package: CloacinaPackage, digest: str, attempt: int) -> None:
        known = self._seen.job(run.metadata.namespace, run.name)
        if known is not None:
            if owner_uid(known) == run.metadata.uid and attempt_of(known) >= attempt:
                return
            await self._delete_job(*key_of(known))
        parts = await self._ensure_parts(package, digest)
        wanted = manifests.run_job(run, package, digest, attempt, parts, self._settings, self._now())
        try:
            made = await self._create("/apis/batch/v1", "jobs", wanted)
        except AlreadyExists:
            await self._meet(run)
            return
        except (Invalid, Forbidden) as error:
            self._refuse(run.ref, PodReason.POD_FORBIDDEN, f"the package's podTemplate gives no valid Job: {error}")
            return
        except NotFound:
            return  # its namespace is going
        self._refused.pop(run.ref, None)
        self.started_runs += 1
        self._seen.jobs.saw(made)

    async def _meet(self, run: WorkflowRun) -> None:
        """There is a Job of that name that we did not know of: another operator's, one that is going, or a stranger."""
        try:
            found = await self._api.request(
                "GET", f"/apis/batch/v1/namespaces/{run.metadata.namespace}/jobs/{run.name}"
            )
        except NotFound:
            self._changed(run.ref)
            return
        if self._seen.is_ours(found):
            self._seen.jobs.saw(found)
            return
        owner = controller_of(found) or {}
        if (owner.get("kind"), owner.get("name")) == (WorkflowRun.KIND, run.name):
            self._changed(run.ref)  # of an earlier run of that name: it goes with that run
            await self._delete("/apis/batch/v1", "jobs", run.metadata.namespace, run.name, uid_of(found))
            return
        said = f"a Job {run.name!r} exists that is not ours: delete or rename it"
        self._refuse(run.ref, PodReason.NAME_TAKEN, said)

    async def stop_run(self, run: Ref) -> None:
        """Deletes its Job, and with it the pod, which gets SIGTERM and its grace; until it has ended it is alive."""
        job = self._seen.job(run.namespace, run.name)
        if job is not None and uid_of(job) not in self._seen.stopped:
            self._seen.stopped.add(uid_of(job))
            await self._delete_job(run.namespace, run.name)

    def forget_run(self, run: Ref) -> None:
        self._refused.pop(run, None)
        self._refused_at.pop(run, None)

    async def remove_run(self, run: Ref) -> None:
        """Its Job is owned by it, and goes with it."""
        self.forget_run(run)

    # --- the API

    def _refuse(self, ref: Ref, reason: str, message: str) -> None:
        self._refused_at[ref] = self._now()
        before, after = self._refused.get(ref), Hindrance(reason=reason, message=message)
        if before != after:
            self._refused[ref] = after
            self._changed(ref)

    async def _create(self, api: str, plural: str, wanted: Manifest) -> Object:
        path = f"{api}/namespaces/{wanted['metadata']['namespace']}/{plural}"
        return await self._api.request("POST", path, body=wanted, params={"fieldValidation": "Strict"})

    async def _replace(self, api: str, plural: str, wanted: Manifest) -> Object:
        path = f"{api}/namespaces/{wanted['metadata']['namespace']}/{plural}/{wanted['metadata']['name']}"
        return await self._api.request("PUT", path, body=wanted, params={"fieldValidation": "Strict"})

    async def _delete_job(self, namespace: str, name: str) -> None:
        known = self._seen.job(namespace, name)
        await self._delete("/apis/batch/v1", "jobs", namespace, name, None if known is None else uid_of(known))

    async def _delete(self, api: str, plural: str, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete it with all it owns; gone already, or another one by now: fine."""
        body: dict[str, Any] = dict(_BACKGROUND)
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._api.request("DELETE", f"{api}/namespaces/{namespace}/{plural}/{name}", body=body)
        except (NotFound, Conflict):
            return
        except StoreError as error:
            log.warning("%s %s/%s cannot be deleted: %s", plural, namespace, name, error)
            raise


def _wanted(package: CloacinaPackage, settings: PodSettings) -> str:
    """Tells whether a poller is as package and settings would have it now."""
    template = json.dumps(manifests.poller_deployment(package, "", 0, settings)["spec"]["template"], sort_keys=True)
    return hashlib.sha256(template.encode()).hexdigest()[:16]
