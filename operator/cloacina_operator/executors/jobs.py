"""Pods: a poller is a Deployment, a run a Job, an inspection a Job. Watches them, and makes and deletes them.

Decides nothing about runs and packages: what a pod's state means is said by ``core.trouble``, what to make by
``core.manifests``. Everything that is made has an owner, so that it goes with it, also while no operator runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from cloaca.errors import AlreadyExists, Conflict, ImportCrashed, Invalid, LoadError, NotFound, StoreError
from cloaca.packages.archive import Limits, read_archive
from cloaca.packages.inventory import Inventory
from cloaca.processes.report import read_report
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.resources.conditions import PodReason
from cloaca.resources.names import (
    ATTEMPT_ANNOTATION,
    CLUSTER_PACKAGE_LIMIT,
    COMPONENT_LABEL,
    DIGEST_ANNOTATION,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    PACKAGE_LABEL,
    archive_part_name,
    label_value,
    poller_name,
)
from cloaca.store import Store
from cloacina_operator.core import manifests
from cloacina_operator.core.manifests import Component, Manifest, PodSettings
from cloacina_operator.core.packages import Hindrance, PollerState
from cloacina_operator.core.runs import Execution
from cloacina_operator.core.trouble import execution_of, last_words, of_deployment, of_refusals
from cloacina_operator.executors.watched import Cluster, Object, Watched, key_of, owner_uid, uid_of

log = logging.getLogger("cloacina.jobs")

TEMPLATE_ANNOTATION = "cloacina.io/template"  # hash of a Deployment as we want it: equal means nothing to write
INSPECTIONS = 3  # pods for one import, where the cluster takes them away
TRY_AGAIN = timedelta(seconds=25)  # before a Job that was refused is tried again; runs that are hindered ask after 30
_LOST = frozenset({PodReason.EVICTED, PodReason.POD_DELETED})
_BACKGROUND = {"propagationPolicy": "Background"}


class Jobs:
    """The executor of a cluster. Belongs to one event loop; ``run()`` follows the cluster."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        settings: PodSettings,
        limits: Limits,
        max_runs: int,
        namespace: str | None,
        changed: Callable[[Ref], None],
        now: Callable[[], datetime],
    ) -> None:
        """``namespace``: the only one that is looked at; None: all."""
        self._cluster = cluster
        self._store = store
        self._settings = settings
        self._limits = limits
        self._max_runs = max_runs
        self._changed = changed
        self._now = now
        within = "" if namespace is None else f"/namespaces/{namespace}"
        ours = {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGED_BY}"}
        refused = {"fieldSelector": "reason=FailedCreate,involvedObject.kind=Job"}
        self._deployments = Watched(cluster, f"/apis/apps/v1{within}/deployments", ours, self._saw_deployment)
        self._jobs = Watched(cluster, f"/apis/batch/v1{within}/jobs", ours, self._saw_job)
        self._pods = Watched(cluster, f"/api/v1{within}/pods", ours, self._saw_pod)
        self._events = Watched(cluster, f"/api/v1{within}/events", refused, self._saw_event)
        self._pods_of: defaultdict[str, dict[str, Object]] = defaultdict(dict)  # Job's uid -> pod's uid -> pod
        self._poller_pods: defaultdict[tuple[str, str], dict[str, Object]] = defaultdict(dict)  # namespace, label
        self._run_pods: defaultdict[tuple[str, str], dict[str, Object]] = defaultdict(
            dict
        )  # namespace, name of the run
        self._refusals: defaultdict[str, dict[str, Object]] = defaultdict(dict)  # Job's uid -> name -> event
        self._ends: dict[str, Execution] = {}  # Job's uid -> how its pod ended, which outlives the pod
        self._active: set[str] = set()  # uids of Jobs of runs that have not ended
        self._refused: dict[Ref, Hindrance] = {}  # what the server did not let us make
        self._refused_at: dict[Ref, datetime] = {}
        self._parts: dict[tuple[str, str], int] = {}  # package's uid, digest -> ConfigMaps that are there
        self._imports: dict[Ref, tuple[str, str]] = {}  # package -> its inspection Job
        self._news: defaultdict[tuple[str, str], asyncio.Event] = defaultdict(asyncio.Event)
        self._stopped: set[str] = set()  # uids of Deployments and Jobs that were asked to go
        self.started_runs = 0
        """Jobs made for attempts of runs."""

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        following = [asyncio.ensure_future(watched.run()) for watched in self._all]
        try:
            await asyncio.gather(*following)
        finally:
            for task in following:
                task.cancel()
            await asyncio.wait(following)

    async def listed(self) -> None:
        """Return when everything was seen once: before that, what is not known may still be there."""
        for watched in self._all:
            await watched.listed.wait()

    @property
    def _all(self) -> tuple[Watched, ...]:
        return (self._deployments, self._jobs, self._pods, self._events)

    # --- what is heard

    def _saw_deployment(self, before: Object | None, after: Object | None) -> None:
        self._tell(after or before)

    def _saw_job(self, before: Object | None, after: Object | None) -> None:
        seen = after or before
        if seen is None:
            return
        uid = uid_of(seen)
        if before is not None and (after is None or uid_of(after) != uid_of(before)):
            gone = uid_of(before)
            self._pods_of.pop(gone, None)
            self._refusals.pop(gone, None)
            self._ends.pop(gone, None)
            self._active.discard(gone)
            self._stopped.discard(gone)
        if after is not None and _component(after) == Component.RUN:
            self._active.discard(uid) if self._job_execution(after).ended_at else self._active.add(uid)
        self._tell(seen)

    def _saw_pod(self, before: Object | None, after: Object | None) -> None:
        seen = after or before
        if seen is None:
            return
        if _component(seen) == Component.POLLER:
            pods = self._poller_pods[(seen["metadata"]["namespace"], seen["metadata"]["labels"].get(PACKAGE_LABEL, ""))]
            if after is None:
                pods.pop(uid_of(seen), None)
            else:
                pods[uid_of(after)] = after
            self._tell(seen)
            return
        job = owner_uid(seen)
        if job is None:
            return
        if after is None:
            self._pods_of[job].pop(uid_of(seen), None)
        else:
            self._pods_of[job][uid_of(after)] = after
        owner = next((owner for owner in seen["metadata"]["ownerReferences"] if owner.get("controller")), None)
        if owner is None:
            return
        key = (str(seen["metadata"]["namespace"]), str(owner["name"]))
        if _component(seen) == Component.RUN:
            if after is None:
                self._run_pods[key].pop(uid_of(seen), None)
            else:
                self._run_pods[key][uid_of(after)] = after
            if not self._run_pods[key]:
                del self._run_pods[key]
        known = self._jobs.get(*key)
        if known is not None and uid_of(known) == job:
            self._saw_job(known, known)
            return
        self._pods_of.pop(job, None)  # its Job is gone
        if _component(seen) == Component.RUN:
            self._changed(Ref(WorkflowRun.KIND, *key))

    def _saw_event(self, before: Object | None, after: Object | None) -> None:
        seen = after or before
        if seen is None:
            return
        about = seen["involvedObject"]
        job = self._jobs.get(about.get("namespace", ""), about.get("name", ""))
        if job is None or uid_of(job) != about.get("uid"):
            return  # of somebody else's Job
        if after is None:
            self._refusals[uid_of(job)].pop(seen["metadata"]["name"], None)
        else:
            self._refusals[uid_of(job)][seen["metadata"]["name"]] = after
        self._tell(job)

    def _tell(self, obj: Object | None) -> None:
        """Whoever applied what ``obj`` was made for may have something new to see."""
        if obj is None:
            return
        namespace, name = key_of(obj)
        self._news[(namespace, name)].set()
        if _component(obj) == Component.RUN:
            self._changed(Ref(WorkflowRun.KIND, namespace, name))
            return
        for owner in obj["metadata"].get("ownerReferences", ()):
            if owner["kind"] == CloacinaPackage.KIND:
                self._changed(Ref(CloacinaPackage.KIND, namespace, owner["name"]))
                return
        package = obj["metadata"].get("labels", {}).get(PACKAGE_LABEL)
        if package is not None:  # the pod of a poller
            self._changed(Ref(CloacinaPackage.KIND, namespace, package))

    # --- packages

    async def import_package(self, package: CloacinaPackage, digest: str) -> Inventory:
        data = await self._archive(digest)
        manifest = (await asyncio.to_thread(read_archive, data, self._limits)).manifest
        parts = await self._ensure_parts(package, digest, data)
        wanted = manifests.inspection_job(package, digest, parts, self._settings)
        key = key_of(wanted)
        self._imports[package.ref] = key
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
            self._imports.pop(package.ref, None)
            self._news.pop(key, None)

    async def _inspected(self, package: CloacinaPackage, wanted: Manifest) -> tuple[str, Hindrance | None]:
        """The last words of the inspection, made if it is not there; with what went wrong where it left none."""
        namespace, name = key_of(wanted)
        news = self._news[(namespace, name)]
        while True:
            news.clear()
            job = self._jobs.get(namespace, name)
            if job is None:
                try:
                    self._jobs.saw(await self._create("/apis/batch/v1", "jobs", wanted))
                except AlreadyExists:
                    pass  # an operator before us made it; the watch will tell
                except Invalid as error:
                    raise LoadError(f"no inspection can be made of spec.podTemplate: {error}") from error
                self._changed(package.ref)
            else:
                for pod in self._pods_of[uid_of(job)].values():
                    ended, words, trouble = last_words(pod)
                    if ended:
                        return words, trouble
                seen = self._job_execution(job)
                if seen.ended_at is not None:
                    return "", Hindrance(reason=seen.reason or PodReason.POD_DELETED, message=seen.how)
            await news.wait()

    def inspection(self, package: Ref) -> Hindrance | None:
        key = self._imports.get(package)
        job = None if key is None else self._jobs.get(*key)
        if job is None:
            return None
        for pod in self._pods_of[uid_of(job)].values():
            return last_words(pod)[2]
        return of_refusals(self._refusals[uid_of(job)].values())

    async def discard(self, package: CloacinaPackage, digest: str) -> None:
        await self._prune(package, {digest})

    async def remove_package(self, package: Ref) -> None:
        """Everything of it is owned by it, and goes with it."""
        self._refused.pop(package, None)
        self._poller_pods.pop((package.namespace, label_value(package.name)), None)

    async def _archive(self, digest: str) -> bytes:
        data = await self._store.get_archive(digest)
        if data is None:
            raise LoadError(f"the archive {digest} is not in the store any more: deploy the package again")
        return data

    async def _ensure_parts(self, package: CloacinaPackage, digest: str, data: bytes | None = None) -> int:
        """Have the archive in the package's namespace; returns in how many parts."""
        known = self._parts.get((package.metadata.uid, digest))
        if known is not None:
            return known
        parts = manifests.archive_parts(package, digest, await self._archive(digest) if data is None else data)
        for part in parts:
            try:
                await self._create("/api/v1", "configmaps", part)
            except AlreadyExists:  # immutable, and named by its content
                continue
        self._parts[(package.metadata.uid, digest)] = len(parts)
        return len(parts)

    async def _prune(self, package: CloacinaPackage, digests: set[str]) -> None:
        """Drop the parts of archives that nothing of the package uses; who needs one later makes it again."""
        busy = {_digest(job) for job in self._jobs if uid_of(job) in self._active}
        for uid, digest in [key for key in self._parts if key[0] == package.metadata.uid]:
            if digest not in digests or digest in busy:
                continue
            count = self._parts.pop((uid, digest))
            for part in range(count):
                name = archive_part_name(package.name, digest, part)
                await self._delete("/api/v1", "configmaps", package.metadata.namespace, name)

    # --- pollers

    def poller(self, package: Ref) -> PollerState | None:
        refused = self._refused.get(package)
        deployment = self._deployments.get(package.namespace, poller_name(package.name))
        if deployment is None:
            return None if refused is None else PollerState(digest="", failure=refused.message, reason=refused.reason)
        digest = _digest(deployment)
        pods = self._poller_pods[(package.namespace, label_value(package.name))].values()
        trouble = refused or of_deployment(deployment, pods)
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
        known = self._deployments.get(package.metadata.namespace, poller_name(package.name))
        if known is not None and _digest(known) == digest and _generation(known) == _wanted(package, self._settings):
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
        except Invalid as error:
            self._refuse(package.ref, PodReason.POD_FORBIDDEN, f"spec.podTemplate gives no valid poller: {error}")
            return
        except (Conflict, NotFound):
            self._changed(package.ref)  # it changed meanwhile: look again
            return
        self._refused.pop(package.ref, None)
        self._deployments.saw(made)
        if known is not None and _digest(known) != digest:
            await self._prune(package, {_digest(known)})

    async def stop_poller(self, package: Ref) -> None:
        self._refused.pop(package, None)
        name = poller_name(package.name)
        known = self._deployments.get(package.namespace, name)
        if known is not None and uid_of(known) not in self._stopped:
            self._stopped.add(uid_of(known))
            await self._delete("/apis/apps/v1", "deployments", package.namespace, name, uid_of(known))

    # --- runs

    def execution(self, run: Ref) -> Execution | None:
        job = self._jobs.get(run.namespace, run.name)
        if job is not None:
            return self._job_execution(job)
        for pod in self._run_pods.get((run.namespace, run.name), {}).values():
            if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                return Execution(attempt=_attempt(pod))  # its Job was deleted; it is about to end
        refused = self._refused.get(run)
        if refused is None or self._now() >= self._refused_at[run] + TRY_AGAIN:
            return None  # nothing is there: it is tried (again)
        return Execution(attempt=1 << 30, how=refused.message, reason=refused.reason)

    def _job_execution(self, job: Object) -> Execution:
        """What became of its pod, remembered beyond the pod's deletion."""
        uid = uid_of(job)
        known = self._ends.get(uid)
        if known is not None:
            return known
        seen = execution_of(job, self._pods_of[uid].values(), self._refusals[uid].values(), self._now())
        if seen.ended_at is not None:
            self._ends[uid] = seen
        return seen

    @property
    def active_runs(self) -> int:
        """Jobs of runs that have not ended."""
        return len(self._active)

    def slot_free(self) -> bool:
        return len(self._active) < self._max_runs

    async def start_run(self, run: WorkflowRun, package: CloacinaPackage, digest: str, attempt: int) -> None:
        known = self._jobs.get(run.metadata.namespace, run.name)
        if known is not None:
            if owner_uid(known) == run.metadata.uid and _attempt(known) >= attempt:
                return
            await self._delete_job(*key_of(known))
        parts = await self._ensure_parts(package, digest)
        wanted = manifests.run_job(run, package, digest, attempt, parts, self._settings, self._now())
        try:
            made = await self._create("/apis/batch/v1", "jobs", wanted)
        except AlreadyExists:
            await self._meet(run)
            return
        except Invalid as error:
            self._refuse(run.ref, PodReason.POD_FORBIDDEN, f"the package's podTemplate gives no valid Job: {error}")
            return
        except NotFound:
            return  # its namespace is going
        self._refused.pop(run.ref, None)
        self.started_runs += 1
        self._jobs.saw(made)

    async def _meet(self, run: WorkflowRun) -> None:
        """There is a Job of that name that we did not know of: another operator's, one that is going, or a stranger."""
        try:
            found = await self._cluster.request(
                "GET", f"/apis/batch/v1/namespaces/{run.metadata.namespace}/jobs/{run.name}"
            )
        except NotFound:
            self._changed(run.ref)
            return
        if found["metadata"].get("labels", {}).get(MANAGED_BY_LABEL) == MANAGED_BY:
            self._jobs.saw(found)
            return
        said = f"a Job {run.name!r} exists that is not ours: delete or rename it"
        self._refuse(run.ref, PodReason.NAME_TAKEN, said)

    async def stop_run(self, run: Ref) -> None:
        """Deletes its Job, and with it the pod, which gets SIGTERM and its grace; until it has ended it is alive."""
        job = self._jobs.get(run.namespace, run.name)
        if job is not None and uid_of(job) not in self._stopped:
            self._stopped.add(uid_of(job))
            await self._delete_job(run.namespace, run.name)

    def forget_run(self, run: Ref) -> None:
        self._refused.pop(run, None)
        self._refused_at.pop(run, None)
        self._news.pop((run.namespace, run.name), None)

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
        return await self._cluster.request("POST", path, body=wanted, params={"fieldValidation": "Strict"})

    async def _replace(self, api: str, plural: str, wanted: Manifest) -> Object:
        path = f"{api}/namespaces/{wanted['metadata']['namespace']}/{plural}/{wanted['metadata']['name']}"
        return await self._cluster.request("PUT", path, body=wanted, params={"fieldValidation": "Strict"})

    async def _delete_job(self, namespace: str, name: str) -> None:
        known = self._jobs.get(namespace, name)
        await self._delete("/apis/batch/v1", "jobs", namespace, name, None if known is None else uid_of(known))

    async def _delete(self, api: str, plural: str, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete it with all it owns; gone already, or another one by now: fine."""
        body: dict[str, Any] = dict(_BACKGROUND)
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._cluster.request("DELETE", f"{api}/namespaces/{namespace}/{plural}/{name}", body=body)
        except (NotFound, Conflict):
            return
        except StoreError as error:
            log.warning("%s %s/%s cannot be deleted: %s", plural, namespace, name, error)
            raise


def _component(obj: Object) -> str:
    return str(obj["metadata"].get("labels", {}).get(COMPONENT_LABEL, ""))


def _digest(obj: Object) -> str:
    return str(obj["metadata"].get("annotations", {}).get(DIGEST_ANNOTATION, ""))


def _generation(obj: Object) -> str:
    return str(obj["metadata"].get("annotations", {}).get(TEMPLATE_ANNOTATION, ""))


def _attempt(job: Object) -> int:
    return int(job["metadata"].get("annotations", {}).get(ATTEMPT_ANNOTATION, "0"))


def _wanted(package: CloacinaPackage, settings: PodSettings) -> str:
    """Tells whether a poller is as package and settings would have it now."""
    template = json.dumps(manifests.poller_deployment(package, "", 0, settings)["spec"]["template"], sort_keys=True)
    return hashlib.sha256(template.encode()).hexdigest()[:16]
