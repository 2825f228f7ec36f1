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

from cloaca.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    ImportCrashed,
    Invalid,
    LoadError,
    NotFound,
    SourceError,
    StoreError,
)
from cloaca.packages.acceptance import Accepted
from cloaca.packages.archive import Limits
from cloaca.packages.sources import check_url
from cloaca.processes.fetch_report import FetchReport, read_fetch_report, refused
from cloaca.processes.report import read_report
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.resources.conditions import PodReason
from cloaca.resources.names import (
    CLUSTER_PACKAGE_LIMIT,
    PACKAGE_LABEL,
    label_value,
    poller_name,
)
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.feed import key_of
from cloaca.store.oddities import Oddities
from cloacina_operator.core import manifests
from cloacina_operator.core.inspections import awaiting, inspection_job
from cloacina_operator.core.manifests import Component, Manifest, PodSettings
from cloacina_operator.core.packages import Hindrance, PollerState
from cloacina_operator.core.runs import Execution
from cloacina_operator.core.trouble import attempt_of, fetch_words, last_words, of_deployment, of_refusals
from cloacina_operator.executors.base import ArchiveMissing, Waiting
from cloacina_operator.executors.kept import KeptArchives, versions_of
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
        self._settings = settings
        self._limits = limits
        self._changed = changed
        self._now = now
        self._seen = Sightings(api, namespaces, changed, now, known_uid, oddities)
        self._refused: dict[Ref, Hindrance] = {}  # what the server did not let us make
        self._refused_at: dict[Ref, datetime] = {}
        self._kept = KeptArchives(api, now)
        self._awaiting: set[Ref] = set()  # packages whose inspection waits for news of the source
        self._fetched: dict[Ref, tuple[str, FetchReport]] = {}  # package -> its uid, what its last inspection fetched
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

    def awaits_news(self, package: CloacinaPackage) -> bool:
        """The inspection of a package with a URL waits in its first container. ConfigMaps are asked for their versions,
        which takes no pod."""
        return package.spec.source.url is not None

    async def fetch(
        self, package: CloacinaPackage, known: Sequence[str], revision: str | None, waiting: Waiting | None = None
    ) -> FetchReport:
        """The first container of an inspection's pod; the second begins as soon as it has ended well."""
        hindered, version = await self._looked_at(package)
        if hindered is not None:
            return hindered
        if version is not None and version == revision and known:
            return FetchReport(digest=known[0], revision=revision, unchanged=True)
        wanted = inspection_job(package, known, revision, self._settings, self._limits)
        if waiting is not None:
            wanted = awaiting(wanted, waiting.every, waiting.after)
            self._awaiting.add(package.ref)
        key = key_of(wanted)
        self._imports[package.ref] = key
        await self._delete_other_inspections(package, wanted)
        going_on = False
        try:
            report = await self._report(package, wanted)
            if version is not None:  # as they were before they were read: newer ones are read at the next pull
                report = report.model_copy(update={"revision": version})
            going_on = report.refusal is None and not report.unchanged
            if report.digest is not None and going_on:
                self._kept.published(package, report.digest, report.size)
                self._fetched[package.ref] = (package.metadata.uid, report)
        except asyncio.CancelledError:
            going_on = True  # another operator takes it over, or it is deleted for a newer spec
            raise
        finally:
            self._awaiting.discard(package.ref)
            if not going_on:
                await self._end_inspection(package.ref, key)
        return report

    async def _report(self, package: CloacinaPackage, wanted: Manifest) -> FetchReport:
        """What the fetch of an inspection says; made again where the cluster takes its pod away."""
        trouble = None
        for _ in range(INSPECTIONS):
            try:
                words, trouble = await self._said(package, wanted, fetch_words)
            except LoadError as error:
                return refused("FetchFailed", str(error), retry=True)
            if trouble is None:
                try:
                    return read_fetch_report(words)
                except LoadError as error:
                    return refused("ArchiveInvalid", str(error))
            if trouble.reason not in _LOST:
                break
            await self._delete_job(*key_of(wanted))
        said = f"the fetch ended without a report: {trouble.message if trouble else 'nothing is known of it'}"
        if trouble is not None and trouble.reason == PodReason.OUT_OF_MEMORY:
            return refused("ArchiveInvalid", said)
        return refused("FetchFailed", said, retry=True)

    async def _looked_at(self, package: CloacinaPackage) -> tuple[FetchReport | None, str | None]:
        """(why no pod need be made to know that nothing can be fetched, which version of ConfigMaps would be)."""
        if len(package.name) > CLUSTER_PACKAGE_LIMIT:
            return refused("SourceUnsupported", _too_long(package)), None
        source, namespace = package.spec.source, package.metadata.namespace
        if source.config_map is None:
            try:
                check_url(source.url or "", files=False)
            except SourceError as error:
                return refused("SourceUnsupported", str(error)), None
            return None, None
        versions = await versions_of(self._api, namespace, source.config_map.name)
        if not versions:
            said = f"there is no ConfigMap {namespace}/{source.config_map.name}, which the package names: create it"
            return refused("FetchFailed", said, retry=True), None
        return None, f"resourceVersion: {','.join(versions)}"

    async def import_package(self, package: CloacinaPackage, digest: str) -> Accepted:
        """The second container of the pod that fetched the archive."""
        uid, fetched = self._fetched.get(package.ref, ("", None))
        if fetched is None or fetched.digest != digest or uid != package.metadata.uid:
            raise ArchiveMissing(f"the archive {digest} has to be fetched again to be imported")
        key = self._imports.get(package.ref)
        wanted = None if key is None else self._seen.job(*key)
        if key is None or wanted is None:
            raise ArchiveMissing(f"the inspection of the archive {digest} is gone")
        ended = True
        try:
            words, trouble = await self._said(package, wanted, last_words)
            if trouble is not None and trouble.reason in _LOST:
                raise ArchiveMissing(f"the inspection of the archive {digest} was taken away: {trouble.message}")
            if trouble is not None:
                raise ImportCrashed(f"the inspection ended without a report: {trouble.message}")
            manifest = await self._kept.manifest(package, digest) if fetched.published else None
            found = await asyncio.to_thread(read_report, words, manifest)
            if found.version != fetched.version:
                raise ImportCrashed("the inspection reports another version than the manifest has")
        except asyncio.CancelledError:
            ended = False  # as above
            raise
        finally:
            if ended:
                await self._end_inspection(package.ref, key)
        return found

    async def _end_inspection(self, package: Ref, key: tuple[str, str]) -> None:
        if self._imports.get(package) == key:  # else another inspection of the package has begun
            del self._imports[package]
        self._seen.news.pop(key, None)
        await self._delete_job(*key)

    async def _delete_other_inspections(self, package: CloacinaPackage, wanted: Manifest) -> None:
        """Those for an older spec of the package: nobody asks for what they say any more."""
        for job in list(self._seen.our_jobs()):
            ours = owner_uid(job) == package.metadata.uid and component_of(job) == Component.INSPECTION
            if ours and key_of(job) != key_of(wanted):
                await self._delete_job(*key_of(job))

    async def _said(
        self, package: CloacinaPackage, wanted: Manifest, read: Callable[[Object], Said]
    ) -> tuple[str, Hindrance | None]:
        """The last words of a container of the inspection, which is made if it is not there; with what went wrong where
        it left none."""
        namespace, name = key_of(wanted)
        news = self._seen.news.setdefault((namespace, name), asyncio.Event())
        while True:
            news.clear()
            job = self._seen.job(namespace, name)
            if job is None and self._seen.jobs.get(namespace, name) is not None:
                raise LoadError(f"a Job {name!r} exists that is not ours: delete or rename it")
            if job is None and "spec" not in wanted:  # it was seen before, and is gone
                return "", Hindrance(reason=PodReason.POD_DELETED, message="its Job was deleted")
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
                    ended, words, trouble = read(pod)
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
            ended, _, trouble = fetch_words(pod)
            return last_words(pod)[2] if ended else trouble
        return of_refusals(self._seen.refusals[uid_of(job)].values())

    async def remove_package(self, package: Ref) -> None:
        """Everything of it is owned by it, and goes with it."""
        self._refused.pop(package, None)
        self._refused_at.pop(package, None)
        self._kept.forget(package)
        self._fetched.pop(package, None)
        self._seen.poller_pods.pop((package.namespace, label_value(package.name)), None)

    # --- archives

    async def has_archive(self, package: CloacinaPackage, digest: str) -> bool:
        return await self._kept.has(package, digest)

    async def keep_archives(self, package: CloacinaPackage, digests: Collection[str]) -> None:
        """Those that a Job or poller mounts stay, too: its pod may have to be made again."""
        waiting = package.ref in self._awaiting
        if package.ref in self._imports and not waiting:
            return  # it is about to publish one; its end has us look again
        mine = [one for one in (*self._seen.our_jobs(), *self._seen.deployments) if _is_of(one, package)]
        await self._kept.keep(package, {*digests, *(digest_of(one) for one in mine)}, spare_new=waiting)

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
            self._refuse(package.ref, PodReason.NAME_TOO_LONG, _too_long(package))
            return
        known = self._seen.deployment(package.metadata.namespace, poller_name(package.name))
        if (
            known is not None
            and digest_of(known) == digest
            and generation_of(known) == _wanted(package, self._settings)
        ):
            return
        parts = await self._kept.count(package, digest)
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
        parts = await self._kept.count(package, digest)
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


Said = tuple[bool, str, Hindrance | None]  # whether it ended, its words, what went wrong


def _too_long(package: CloacinaPackage) -> str:
    said = f"the name has {len(package.name)} characters, on a cluster it may have {CLUSTER_PACKAGE_LIMIT}"
    return f"{said}: deploy it under a shorter one"


def _is_of(one: Object, package: CloacinaPackage) -> bool:
    labels = one["metadata"].get("labels", {})
    same = one["metadata"].get("namespace") == package.metadata.namespace
    return bool(same and labels.get(PACKAGE_LABEL) == label_value(package.name))


def _wanted(package: CloacinaPackage, settings: PodSettings) -> str:
    """Tells whether a poller is as package and settings would have it now."""
    template = json.dumps(manifests.poller_deployment(package, "", 0, settings)["spec"]["template"], sort_keys=True)
    return hashlib.sha256(template.encode()).hexdigest()[:16]
