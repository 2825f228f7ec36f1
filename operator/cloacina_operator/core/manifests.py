"""Build the Kubernetes objects of pollers and runs. Pure: the same input gives the same object."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from cloaca.packages.addresses import SourcePolicy
from cloaca.polling.schedule import JITTER
from cloaca.polling.workers import WORKER_MEMORY
from cloaca.resources import CloacinaPackage, Resource, WorkflowRun
from cloaca.resources.meta import owned_by
from cloaca.resources.names import (
    ATTEMPT_ANNOTATION,
    COMPONENT_LABEL,
    DIGEST_ANNOTATION,
    MAIN_CONTAINER,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    PACKAGE_LABEL,
    RUN_LABEL,
    archive_part_name,
    label_value,
    poller_name,
)
from cloaca.store.kubernetes.archives import PART_KEY
from cloacina_operator.core.merge import merged
from cloacina_operator.core.spans import lasting

Manifest = dict[str, Any]

ARCHIVE_VOLUME = "cloacina-archive"
ARCHIVE_PATH = "/cloacina/archive"
FETCH_CONTAINER = "fetch"
"""The container of an inspection that gets the archive; a podTemplate may add to it among its initContainers."""
SCRATCH_VOLUME = "cloacina-tmp"
SCRATCH_PATH = "/tmp"  # noqa: S108  # the one writable folder of a pod that is this package's alone
BACKSTOP = 60
"""Seconds after which the kubelet ends a run that neither its own process nor the operator ended in time."""
POLLER_PORT = 7469
"""Where pollers tell Prometheus: none that something else of a package, which shares it, is likely to listen on."""
POLLER_PORT_NAME = "poller-metrics"
RUN_GRACE = 30
"""Seconds that a process gets to record what was finished, between SIGTERM and SIGKILL."""


ACCOUNT_FIELDS = ("serviceAccountName", "serviceAccount")
"""Of a pod; the latter is the older name of the former."""


class Component(str, Enum):
    """What a pod is for."""

    POLLER = "poller"
    RUN = "run"
    INSPECTION = "inspection"
    ARCHIVE = "archive"
    SOURCE = "source"


@dataclass(frozen=True, kw_only=True)
class PodSettings:
    """What the operator decides about all pods; a package's ``image`` and ``podTemplate`` come on top."""

    image: str
    image_pull_policy: str = "IfNotPresent"
    sources: SourcePolicy = field(default_factory=SourcePolicy)
    """Which addresses sources may be fetched from."""
    image_pull_secrets: tuple[str, ...] = ()
    poller_service_account: str = "cloacina-poller"
    run_service_account: str = "cloacina-run"
    inspection_service_account: str = "cloacina-inspection"
    store: str | None = None
    """URL of the store, as the processes in the pods open it; None: the cluster that they are in."""
    import_timeout: int = 60
    """Seconds that importing a package may take."""
    job_ttl: int = 3600
    """Seconds that the Job of a run, and so its log, stays after its end."""
    worker_memory: int = WORKER_MEMORY
    """Bytes that a worker of a poller may have resident between two polls; over that it is replaced."""
    jitter: float = JITTER
    """The part of its interval by which chance may put off a poll."""
    poller_port: int = POLLER_PORT
    """Where pollers tell Prometheus; 0: nowhere."""
    resources: Manifest = field(default_factory=lambda: {"requests": {"cpu": "50m", "memory": "96Mi"}})
    """Of the main container, where the podTemplate says nothing."""


def poller_deployment(package: CloacinaPackage, digest: str, parts: int, settings: PodSettings) -> Manifest:
    """The Deployment that polls a package: one pod, and the old one is gone before a new one comes."""
    labels = labels_of(package.name, Component.POLLER)
    where = _where(package, digest, settings, cached=True)  # it looks at the same objects again and again
    limits = ["--worker-memory", str(settings.worker_memory), "--jitter", str(settings.jitter)]
    port = _poller_port(package, settings)
    measured = [] if port is None else ["--metrics-port", str(port)]
    arguments = ["cloaca.processes.poll", "--package", package.name, *limits, *measured, *where]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata_of(poller_name(package.name), package, labels, {DIGEST_ANNOTATION: digest}),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": 120,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": pod_of(
                package=package,
                digest=digest,
                parts=parts,
                settings=settings,
                labels=labels,
                arguments=arguments,
                account=account_of(package, Component.POLLER) or settings.poller_service_account,
                restart="Always",
                port=port,
            ),
        },
    }


def _poller_port(package: CloacinaPackage, settings: PodSettings) -> int | None:
    """None: nobody measures. In the node's own network the port would be the node's: for one poller only, and open."""
    spec = (package.spec.pod_template or {}).get("spec")
    of_node = isinstance(spec, dict) and spec.get("hostNetwork")
    return None if of_node or not settings.poller_port else settings.poller_port


def run_job(
    run: WorkflowRun,
    package: CloacinaPackage,
    digest: str,
    attempt: int,
    parts: int,
    settings: PodSettings,
    now: datetime,
) -> Manifest:
    """The Job of one attempt of a run. It tries once: the operator counts attempts, and resumes at the frontier."""
    labels = labels_of(package.name, Component.RUN) | {RUN_LABEL: label_value(run.name)}
    annotations = {DIGEST_ANNOTATION: digest, ATTEMPT_ANNOTATION: str(attempt)}
    arguments = [
        "cloaca.processes.attempt",
        *("--run", run.name, "--uid", run.metadata.uid, "--attempt", str(attempt)),
        *_where(package, digest, settings),
    ]
    pod = pod_of(
        package=package,
        digest=digest,
        parts=parts,
        settings=settings,
        labels=labels,
        arguments=arguments,
        account=account_of(package, Component.RUN) or settings.run_service_account,
        restart="Never",
    )
    pod["metadata"]["annotations"] = {**pod["metadata"]["annotations"], ATTEMPT_ANNOTATION: str(attempt)}
    deadline = _seconds_left(run, now)
    if deadline is not None:
        pod["spec"]["activeDeadlineSeconds"] = deadline + BACKSTOP
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata_of(run.name, run, labels, annotations),
        "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": settings.job_ttl, "template": pod},
    }


def _where(package: CloacinaPackage, digest: str, settings: PodSettings, *, cached: bool = False) -> list[str]:
    """``cached``: whether reads come from memory, which a watch feeds with what is of the package."""
    namespace = package.metadata.namespace  # the one where the pod's account may look at anything
    kept = f"&cached=true&package={package.name}" if cached else ""
    store = settings.store or f"kubernetes:?namespace={namespace}{kept}"
    return ["--namespace", namespace, "--store", store, *_archive(digest)]


def _archive(digest: str) -> list[str]:
    return ["--archive", ARCHIVE_PATH, "--digest", digest]


def _seconds_left(run: WorkflowRun, now: datetime) -> int | None:
    """Until the run's deadline, which counts from its first start; at least 1."""
    seconds = run.spec.active_deadline_seconds
    if seconds is None or run.status.started_at is None:
        return seconds
    return max(1, int((run.status.started_at + lasting(seconds) - now).total_seconds()))


def labels_of(package: str, component: Component) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "cloacina",
        MANAGED_BY_LABEL: MANAGED_BY,
        COMPONENT_LABEL: component.value,
        PACKAGE_LABEL: label_value(package),
    }


def metadata_of(
    name: str, owner: Resource[Any, Any], labels: dict[str, str], annotations: dict[str, str]
) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": owner.metadata.namespace,
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [owned_by(owner).to_json_dict()],
    }


def pod_of(
    *,
    package: CloacinaPackage,
    digest: str,
    parts: int,
    settings: PodSettings,
    labels: dict[str, str],
    arguments: list[str],
    account: str | None,
    restart: str,
    port: int | None = None,
    archive: Manifest | None = None,
) -> Manifest:
    """A pod template: ours, the package's podTemplate over it, then what must hold whatever that one says.

    ``archive``: the volume with the archive; None: the ConfigMaps of ``digest``.
    """
    ours = {
        "metadata": {"labels": labels, "annotations": {DIGEST_ANNOTATION: digest}},
        "spec": {
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": RUN_GRACE,
            "enableServiceLinks": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            **({} if account is None else {"serviceAccountName": account}),
            **(
                {"imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets]}
                if settings.image_pull_secrets
                else {}
            ),
            "containers": [
                {
                    "name": MAIN_CONTAINER,
                    "image": package.spec.image or settings.image,
                    "imagePullPolicy": settings.image_pull_policy,
                    "env": [{"name": "HOME", "value": SCRATCH_PATH}],
                    "resources": settings.resources,
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": SCRATCH_VOLUME, "mountPath": SCRATCH_PATH}],
                }
            ],
            "volumes": [{"name": SCRATCH_VOLUME, "emptyDir": {}}],
        },
    }
    always = {
        "metadata": {"labels": labels, "annotations": {DIGEST_ANNOTATION: digest}},
        "spec": {
            "restartPolicy": restart,
            "automountServiceAccountToken": account is not None,
            "containers": [
                {
                    "name": MAIN_CONTAINER,
                    "command": ["python", "-m"],
                    "args": arguments,
                    "env": [
                        {"name": "CLOACA_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "PYTHONSAFEPATH", "value": "1"},  # nothing is imported from the working folder
                    ],
                    **({} if port is None else {"ports": [{"name": POLLER_PORT_NAME, "containerPort": port}]}),
                    "volumeMounts": [{"name": ARCHIVE_VOLUME, "mountPath": ARCHIVE_PATH, "readOnly": True}],
                    "terminationMessagePolicy": "File",
                    "terminationMessagePath": "/dev/termination-log",
                }
            ],
            "volumes": [{"name": ARCHIVE_VOLUME, **(archive or _mounted(package, digest, parts))}],
        },
    }
    template = _without_account(package.spec.pod_template or {})
    if archive is None:
        template = _without_fetch(template)
    return merged(merged(ours, template), always)


def _without_fetch(template: Manifest) -> Manifest:
    """``template`` less what it says of the container that fetches, which only an inspection has."""
    spec = template.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("initContainers"), list):
        return template
    others = [one for one in spec["initContainers"] if not _is_fetch(one)]
    return {**template, "spec": {**spec, "initContainers": others}}


def _is_fetch(container: Any) -> bool:
    return isinstance(container, dict) and container.get("name") == FETCH_CONTAINER


def _mounted(package: CloacinaPackage, digest: str, parts: int) -> Manifest:
    """The volume of an archive that is in ConfigMaps."""
    return {
        "projected": {
            "defaultMode": 0o444,
            "sources": [
                {
                    "configMap": {
                        "name": archive_part_name(package.name, package.metadata.uid, digest, number),
                        "items": [{"key": PART_KEY, "path": f"{number:03d}"}],
                    }
                }
                for number in range(parts)
            ],
        }
    }


def account_of(package: CloacinaPackage, component: Component) -> str | None:
    """The service account that the package brings for such pods; None: it brings none."""
    accounts = package.spec.service_accounts
    if accounts is None:
        return None
    return {
        Component.POLLER: accounts.poller,
        Component.RUN: accounts.run,
        Component.INSPECTION: accounts.inspection,
    }.get(component)


def _without_account(template: Manifest) -> Manifest:
    """A podTemplate is of pollers, runs and inspections alike: an account in it would have the rights of all."""
    spec = template.get("spec")
    if not isinstance(spec, dict):
        return template
    return {**template, "spec": {key: value for key, value in spec.items() if key not in ACCOUNT_FIELDS}}
