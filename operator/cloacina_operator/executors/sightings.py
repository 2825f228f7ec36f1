"""What the cluster shows of pollers, runs and inspections: their Deployments, Jobs, pods, and the refusals of Jobs.

Watches and remembers, and tells whose object may have something new to see; makes and deletes nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.resources.names import (
    COMPONENT_LABEL,
    DIGEST_ANNOTATION,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    PACKAGE_LABEL,
    label_value,
)
from cloaca.resources.ref import GROUP
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.feed import key_of
from cloaca.store.oddities import Oddities
from cloacina_operator.core.manifests import Component
from cloacina_operator.core.runs import Execution
from cloacina_operator.core.trouble import execution_of
from cloacina_operator.executors.parts import together
from cloacina_operator.executors.watched import Object, Watched, controller_of, owner_uid, uid_of

_OWNERS = (CloacinaPackage.KIND, WorkflowRun.KIND)
TEMPLATE_ANNOTATION = "cloacina.io/template"  # hash of a Deployment as we want it: equal means nothing to write


class Sightings:
    """Belongs to one event loop; ``run()`` follows the cluster."""

    def __init__(
        self,
        api: Api,
        namespaces: Sequence[str],
        changed: Callable[[Ref], None],
        now: Callable[[], datetime],
        known_uid: Callable[[Ref], str | None] | None = None,
        oddities: Oddities | None = None,
    ) -> None:
        """``namespaces``: the only ones that are looked at; empty: all. ``known_uid``: the uid of a package or run that
        exists; None: every owner of our kinds is believed to exist. ``oddities``: see Reflector."""
        self._known_uid = known_uid
        self._ours: set[str] = set()  # uids of Deployments and Jobs that one of our objects owns, until they are gone
        self._changed = changed
        self._now = now
        within = [f"/namespaces/{namespace}" for namespace in namespaces] or [""]
        ours = {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGED_BY}"}
        refused = {"fieldSelector": "reason=FailedCreate,involvedObject.kind=Job"}
        self.deployments = Watched(
            api, [f"/apis/apps/v1{one}/deployments" for one in within], ours, self._saw_deployment,
            "Deployment", oddities,
        )  # fmt: skip
        self._replica_sets = Watched(
            api, [f"/apis/apps/v1{one}/replicasets" for one in within], ours, self._saw_replica_set,
            "ReplicaSet", oddities,
        )  # fmt: skip
        self.jobs = Watched(api, [f"/apis/batch/v1{one}/jobs" for one in within], ours, self._saw_job, "Job", oddities)
        self._pods = Watched(api, [f"/api/v1{one}/pods" for one in within], ours, self._saw_pod, "Pod", oddities)
        self._events = Watched(
            api, [f"/api/v1{one}/events" for one in within], refused, self._saw_event, "Event", oddities
        )
        self.pods_of: defaultdict[str, dict[str, Object]] = defaultdict(dict)  # Job's uid -> pod's uid -> pod
        self.poller_pods: defaultdict[tuple[str, str], dict[str, Object]] = defaultdict(dict)  # namespace, label
        self.run_pods: defaultdict[tuple[str, str], dict[str, Object]] = defaultdict(dict)  # namespace, name of the run
        self.refusals: defaultdict[str, dict[str, Object]] = defaultdict(dict)  # Job's uid -> name -> event
        self._ends: dict[str, Execution] = {}  # Job's uid -> how its pod ended, which outlives the pod
        self.active: dict[str, Ref] = {}  # uid of a Job that has not ended -> its run
        self.news: dict[tuple[str, str], asyncio.Event] = {}
        """Namespace and name of a Job that somebody waits for → set when it, or a pod of it, changed."""
        self.stopped: set[str] = set()  # uids of Deployments and Jobs that were asked to go

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        await together(watched.run() for watched in self._all)

    async def listed(self) -> None:
        """Return when everything was seen once: before that, what is not known may still be there."""
        for watched in self._all:
            await watched.listed()

    @property
    def heard_at(self) -> float:
        """When the watch that has been silent the longest told of anything, by the monotonic clock."""
        return min(watched.heard_at for watched in self._all)

    @property
    def _all(self) -> tuple[Watched, ...]:
        return (self.deployments, self._replica_sets, self.jobs, self._pods, self._events)

    # --- what is ours: what one of our objects owns as its controller; labels are for everybody to set

    def is_ours(self, obj: Object) -> bool:
        """Whether a Deployment or Job is controlled by a package or run that exists, or did when we first saw it."""
        if uid_of(obj) in self._ours:
            return True
        owner = controller_of(obj)
        if owner is None or owner["kind"] not in _OWNERS or owner["apiVersion"].partition("/")[0] != GROUP:
            return False
        if component_of(obj) == Component.RUN and (owner["kind"], owner["name"]) != (WorkflowRun.KIND, key_of(obj)[1]):
            return False
        ref = Ref(owner["kind"], key_of(obj)[0], owner["name"])
        if self._known_uid is not None and self._known_uid(ref) != owner["uid"]:
            return False
        self._ours.add(uid_of(obj))
        return True

    def job(self, namespace: str, name: str) -> Object | None:
        """The Job of that name, if it is ours."""
        found = self.jobs.get(namespace, name)
        if found is None or uid_of(found) in self._ours:
            return found
        if not self.is_ours(found):
            return None
        self._saw_job(None, found)  # it was seen before its owner
        return found

    def our_jobs(self) -> Iterator[Object]:
        """All Jobs that are ours."""
        return (job for job in self.jobs if self.is_ours(job))

    def deployment(self, namespace: str, name: str) -> Object | None:
        """The Deployment of that name, if it is ours."""
        found = self.deployments.get(namespace, name)
        return found if found is not None and self.is_ours(found) else None

    def pods_of_poller(self, deployment: Object, package: Ref) -> list[Object]:
        """The pods that a poller's Deployment has through its ReplicaSets."""
        pods = self.poller_pods.get((package.namespace, label_value(package.name)), {}).values()
        return [pod for pod in pods if self._deployment_uid(pod) == uid_of(deployment)]

    def _deployment_uid(self, pod: Object) -> str | None:
        owner = controller_of(pod)
        if owner is None or owner["kind"] != "ReplicaSet":
            return None
        found = self._replica_sets.get(key_of(pod)[0], owner["name"])
        return None if found is None or uid_of(found) != owner["uid"] else owner_uid(found)

    # --- what is heard

    def _saw_deployment(self, before: Object | None, after: Object | None) -> None:
        if before is not None and (after is None or uid_of(after) != uid_of(before)):
            self.stopped.discard(uid_of(before))
            self._ours.discard(uid_of(before))
        self._tell(after or before)

    def _saw_replica_set(self, before: Object | None, after: Object | None) -> None:
        self._tell(after or before)  # its pods may have been seen before it

    def _saw_job(self, before: Object | None, after: Object | None) -> None:
        seen = after or before
        if seen is None:
            return
        uid = uid_of(seen)
        if before is not None and (after is None or uid_of(after) != uid_of(before)):
            gone = uid_of(before)
            self.pods_of.pop(gone, None)
            self.refusals.pop(gone, None)
            self._ends.pop(gone, None)
            self.active.pop(gone, None)
            self.stopped.discard(gone)
            self._ours.discard(gone)
        if after is not None and component_of(after) == Component.RUN and self.is_ours(after):
            if self.job_execution(after).ended_at:
                self.active.pop(uid, None)
            else:
                self.active[uid] = Ref(WorkflowRun.KIND, *key_of(after))
        self._tell(seen)

    def _saw_pod(self, before: Object | None, after: Object | None) -> None:
        seen = after or before
        if seen is None:
            return
        if component_of(seen) == Component.POLLER:
            self._saw_poller_pod(seen, gone=after is None)
            return
        job = owner_uid(seen)
        if job is None:
            return
        if after is None:
            self.pods_of[job].pop(uid_of(seen), None)
        else:
            self.pods_of[job][uid_of(after)] = after
        owner = controller_of(seen)
        if owner is None or (owner["kind"], owner["apiVersion"]) != ("Job", "batch/v1"):
            self.pods_of.pop(job, None)
            return
        key = (str(seen["metadata"]["namespace"]), str(owner["name"]))
        if component_of(seen) == Component.RUN:
            if after is None:
                self.run_pods[key].pop(uid_of(seen), None)
            elif job in self._ours or seen["metadata"].get("deletionTimestamp"):  # its Job may be gone before it
                self.run_pods[key][uid_of(after)] = after
            if not self.run_pods[key]:
                del self.run_pods[key]
        known = self.job(*key)
        if known is not None and uid_of(known) == job:
            self._saw_job(known, known)
            return
        self.pods_of.pop(job, None)  # its Job is gone
        if component_of(seen) == Component.RUN:
            self._changed(Ref(WorkflowRun.KIND, *key))

    def _saw_poller_pod(self, pod: Object, *, gone: bool) -> None:
        pods = self.poller_pods[(pod["metadata"]["namespace"], pod["metadata"]["labels"].get(PACKAGE_LABEL, ""))]
        if gone:
            pods.pop(uid_of(pod), None)
        else:
            pods[uid_of(pod)] = pod
        self._tell(pod)

    def _saw_event(self, before: Object | None, after: Object | None) -> None:
        seen = after or before
        if seen is None:
            return
        about = seen["involvedObject"]
        job = self.job(about.get("namespace", ""), about.get("name", ""))
        if job is None or uid_of(job) != about.get("uid"):
            return  # of somebody else's Job
        if after is None:
            self.refusals[uid_of(job)].pop(seen["metadata"]["name"], None)
        else:
            self.refusals[uid_of(job)][seen["metadata"]["name"]] = after
        self._tell(job)

    def _tell(self, obj: Object | None) -> None:
        """Whoever applied what ``obj`` was made for may have something new to see."""
        if obj is None:
            return
        namespace, name = key_of(obj)
        if (news := self.news.get((namespace, name))) is not None:
            news.set()
        if component_of(obj) == Component.RUN:
            self._changed(Ref(WorkflowRun.KIND, namespace, name))
            return
        for owner in obj["metadata"].get("ownerReferences", ()):
            if owner["kind"] == CloacinaPackage.KIND:
                self._changed(Ref(CloacinaPackage.KIND, namespace, owner["name"]))
                return
        package = obj["metadata"].get("labels", {}).get(PACKAGE_LABEL)
        if package is not None:  # the pod of a poller
            self._changed(Ref(CloacinaPackage.KIND, namespace, package))

    def job_execution(self, job: Object) -> Execution:
        """What became of its pod, remembered beyond the pod's deletion."""
        uid = uid_of(job)
        known = self._ends.get(uid)
        if known is not None:
            return known
        seen = execution_of(job, self.pods_of[uid].values(), self.refusals[uid].values(), self._now())
        if seen.ended_at is not None:
            self._ends[uid] = seen
        return seen


def component_of(obj: Object) -> str:
    """A value of Component; empty: it is not of ours."""
    return str(obj["metadata"].get("labels", {}).get(COMPONENT_LABEL, ""))


def digest_of(obj: Object) -> str:
    """Of the archive that it is for."""
    return str(obj["metadata"].get("annotations", {}).get(DIGEST_ANNOTATION, ""))


def generation_of(obj: Object) -> str:
    """What it was made after, see ``TEMPLATE_ANNOTATION``."""
    return str(obj["metadata"].get("annotations", {}).get(TEMPLATE_ANNOTATION, ""))
