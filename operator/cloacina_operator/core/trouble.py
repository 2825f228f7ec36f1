"""Say what is wrong with pods, Jobs and Deployments, in the words of the object that a person applied.

Pure: reads Kubernetes objects as the API gives them, does no I/O, knows no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from cloaca.processes.exits import INTERRUPTED, LOST
from cloaca.resources.conditions import PodReason
from cloaca.resources.names import ATTEMPT_ANNOTATION, MAIN_CONTAINER
from cloaca.resources.ref import moment_of
from cloacina_operator.core.manifests import FETCH_CONTAINER
from cloacina_operator.core.packages import Hindrance
from cloacina_operator.core.runs import Execution

Object = Mapping[str, Any]

_IMAGE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable",
     "ImageInspectError", "SignatureValidationFailed"}
)  # fmt: skip
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"})
_DIGITS = 9  # of the number of an attempt
_TAIL = 500  # characters of what a container said last that a message repeats


def attempt_of(obj: Object) -> int:
    """Which attempt of its run a Job or pod is for; 0 if its annotation does not say a number."""
    said = str(obj["metadata"].get("annotations", {}).get(ATTEMPT_ANNOTATION, ""))
    return int(said) if said.isascii() and said.isdigit() and len(said) <= _DIGITS else 0


def of_pod(pod: Object) -> Hindrance | None:
    """What keeps a pod that has not ended from running; None: nothing (yet)."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for container in _containers(status):
        waiting = container.get("state", {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        where = f"container {container['name']!r} of pod {name!r}"
        if reason in _IMAGE:
            image = container.get("image", "")
            said = f"{where}: the image {image!r} cannot be pulled: {message or reason}; "
            return Hindrance(reason=PodReason.IMAGE_PULL, message=said + "see spec.image and the pull secrets")
        if reason in _CONFIG:
            said = f"{where} cannot be made: {message or reason}; see spec.podTemplate and what it names"
            return Hindrance(reason=PodReason.CONTAINER_CONFIG, message=said)
        last = container.get("lastState", {}).get("terminated") or {}
        if reason == "CrashLoopBackOff":
            if last.get("reason") == "OOMKilled":
                return _out_of_memory(where, pod, container["name"])
            count = container.get("restartCount", 0)
            said = f"{where} ended {count} times and is started again less and less often; {_ended(last)}"
            return Hindrance(reason=PodReason.CRASH_LOOP, message=said)
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            if condition.get("reason") == "SchedulingGated":
                continue
            said = f"no node takes pod {name!r}: {condition.get('message') or condition.get('reason', '')}"
            return Hindrance(reason=PodReason.UNSCHEDULABLE, message=said)
    return None


def of_refusals(events: Iterable[Object]) -> Hindrance | None:
    """Why a controller could not make a pod, of its FailedCreate events, the newest first to be heard."""
    newest = max(events, key=_event_time, default=None)
    return None if newest is None else _refused(str(newest.get("message", "")))


def of_deployment(deployment: Object, pods: Iterable[Object]) -> Hindrance | None:
    """What keeps a poller from polling; None: it polls, or is about to."""
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    for pod in sorted(alive, key=_created, reverse=True):
        found = of_pod(pod) or (_of_ended(pod) if _phase(pod) == "Failed" else None)
        if found is not None:
            return found
    conditions = {condition.get("type"): condition for condition in deployment.get("status", {}).get("conditions", ())}
    refused = conditions.get("ReplicaFailure", {})
    if refused.get("status") == "True" and not alive:
        return _refused(str(refused.get("message", "")))
    progressing = conditions.get("Progressing", {})
    if progressing.get("status") == "False" and not any(_phase(pod) == "Running" for pod in alive):
        return Hindrance(
            reason=PodReason.POLLER_FAILED, message=str(progressing.get("message", "it makes no progress"))
        )
    return None


def execution_of(job: Object, pods: Iterable[Object], refusals: Iterable[Object], seen_at: datetime) -> Execution:
    """What became of the attempt that ``job`` is for. ``seen_at``: its end, where no object tells a time."""
    attempt = attempt_of(job)
    mine = sorted(pods, key=_created, reverse=True)
    pod = mine[0] if mine else None
    if pod is not None and _phase(pod) in ("Succeeded", "Failed"):
        return _ended_execution(attempt, pod, seen_at)
    finished = _finished_condition(job)
    if finished is not None and pod is None:
        said = finished.get("message") or finished.get("reason") or "no reason given"
        how = f"its pod was deleted ({said})"
        at = _time(finished.get("lastTransitionTime")) or seen_at
        return Execution(attempt=attempt, ended_at=at, how=how, reason=PodReason.POD_DELETED)
    trouble = of_pod(pod) if pod is not None else of_refusals(refusals)
    if trouble is None:
        return Execution(attempt=attempt)
    return Execution(attempt=attempt, how=trouble.message, reason=trouble.reason)


def last_words(pod: Object) -> tuple[bool, str, Hindrance | None]:
    """Of the pod of an inspection: whether it has ended, what it left as its termination message, what went wrong."""
    if _phase(pod) not in ("Succeeded", "Failed"):
        return False, "", of_pod(pod)
    for container in _containers(pod.get("status", {})):
        terminated = container.get("state", {}).get("terminated") or {}
        if container["name"] == MAIN_CONTAINER and terminated.get("message"):
            return True, str(terminated["message"]), None
    return True, "", _of_ended(pod)


def fetch_words(pod: Object) -> tuple[bool, str, Hindrance | None]:
    """As ``last_words``, of the container of an inspection that fetches."""
    for container in pod.get("status", {}).get("initContainerStatuses") or ():
        terminated = container.get("state", {}).get("terminated") or {}
        if container["name"] == FETCH_CONTAINER and terminated:
            where = f"container {FETCH_CONTAINER!r} of pod {pod['metadata']['name']!r}"
            if terminated.get("message"):
                return True, str(terminated["message"]), None
            if terminated.get("reason") == "OOMKilled":
                return True, "", _out_of_memory(where, pod, FETCH_CONTAINER)
            if not _disrupted(pod.get("status", {})):
                return True, "", Hindrance(reason=PodReason.PROCESS_DIED, message=f"{where}: {_ended(terminated)}")
    if _phase(pod) not in ("Succeeded", "Failed"):
        return False, "", of_pod(pod)
    return True, "", _of_ended(pod)


def _ended_execution(attempt: int, pod: Object, seen_at: datetime) -> Execution:
    terminated = _main_end(pod)
    code = terminated.get("exitCode")
    at = _time(terminated.get("finishedAt")) or seen_at
    trouble = _of_ended(pod)
    taken = _taken_away(pod.get("status", {}))
    interrupted = taken or code in (INTERRUPTED, LOST)
    return Execution(
        attempt=attempt,
        ended_at=at,
        how=trouble.message,
        reason="" if code == 0 or (interrupted and not taken) else trouble.reason,
        interrupted=interrupted,
    )


def _of_ended(pod: Object) -> Hindrance:
    """Why a pod is over."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    why, said = status.get("reason", ""), status.get("message", "")
    if why == "Evicted" or _disrupted(status):
        return Hindrance(reason=PodReason.EVICTED, message=f"pod {name!r} was evicted: {said or _disrupted(status)}")
    if why == "DeadlineExceeded":
        return Hindrance(reason=PodReason.DEADLINE_EXCEEDED, message=f"pod {name!r} ran too long and was ended: {said}")
    terminated = _main_end(pod)
    where = f"container {MAIN_CONTAINER!r} of pod {name!r}"
    if terminated.get("reason") == "OOMKilled":
        return _out_of_memory(where, pod, MAIN_CONTAINER)
    if why in ("NodeLost", "NodeAffinity", "NodeShutdown", "Terminated", "Shutdown"):
        return Hindrance(reason=PodReason.EVICTED, message=f"pod {name!r} lost its node ({why}): {said}")
    if terminated:
        return Hindrance(reason=PodReason.PROCESS_DIED, message=f"{where}: {_ended(terminated)}")
    said = said or why or "no reason given"
    return Hindrance(reason=PodReason.PROCESS_DIED, message=f"pod {name!r} ended: {said}")


def _refused(message: str) -> Hindrance:
    if "exceeded quota" in message or ("must specify" in message and "quota" in message):
        reason = PodReason.QUOTA_EXCEEDED
        advice = "ask for less in spec.podTemplate, free some, or have the ResourceQuota raised"
    else:
        reason, advice = PodReason.POD_FORBIDDEN, "see spec.podTemplate and the rules of the namespace"
    return Hindrance(reason=reason, message=f"no pod may be made: {message or 'no reason given'}; {advice}")


def _out_of_memory(where: str, pod: Object, container: str) -> Hindrance:
    limit = next(
        (
            entry.get("resources", {}).get("limits", {}).get("memory")
            for group in ("containers", "initContainers")
            for entry in pod.get("spec", {}).get(group) or ()
            if entry.get("name") == container
        ),
        None,
    )
    passed = "the node ran out of memory" if limit is None else f"it passed its memory limit of {limit}"
    said = f"{where} was killed because {passed}: raise resources.limits.memory in spec.podTemplate, or use less"
    return Hindrance(reason=PodReason.OUT_OF_MEMORY, message=said)


def _ended(terminated: Object) -> str:
    """``exit code 3``, with what was said last."""
    if not terminated:
        return "nothing is known of how"
    signal = terminated.get("signal")
    how = f"signal {signal}" if signal else f"exit code {terminated.get('exitCode')}"
    said = str(terminated.get("message") or "").strip()[-_TAIL:]
    return f"{how}: {said}" if said else how


def _taken_away(status: Object) -> bool:
    """Whether the cluster took the pod away for reasons of its own: a drain, a preemption, a node that is shut down.

    A node that runs out of something takes away who uses more of it than they asked for: that is the pod's own doing.
    """
    return bool(_disrupted(status)) and status.get("reason") != "Evicted"


def _disrupted(status: Object) -> str:
    """Why the pod was taken away by the cluster; empty: it was not."""
    for condition in status.get("conditions", ()):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return str(condition.get("message") or condition.get("reason") or "a disruption")
    return ""


def _main_end(pod: Object) -> Object:
    for container in _containers(pod.get("status", {})):
        if container["name"] == MAIN_CONTAINER:
            return container.get("state", {}).get("terminated") or {}
    return {}


def _containers(status: Object) -> Iterator[Any]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _finished_condition(job: Object) -> Object | None:
    for condition in job.get("status", {}).get("conditions", ()):
        if condition.get("type") in ("Failed", "Complete") and condition.get("status") == "True":
            return dict(condition)
    return None


def _phase(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _created(obj: Object) -> str:
    return str(obj["metadata"].get("creationTimestamp") or "")


def _event_time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def _time(text: str | None) -> datetime | None:
    try:
        return None if not text else moment_of(text)
    except ValueError:
        return None  # a year that Python cannot hold
