"""Build the Job that inspects an archive. Pure: the same input gives the same object.

Its pod has two containers. ``fetch`` gets the bytes, looks at them without running them, and publishes them in
ConfigMaps of the package: it alone has the credentials of the source, and a token that may create those ConfigMaps.
``main`` then imports the package, without any token.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cloaca.packages.archive import Limits
from cloaca.processes.fetch import limits_as_arguments, policy_as_arguments
from cloaca.resources import CloacinaPackage
from cloaca.resources.names import inspection_name
from cloaca.store.kubernetes.archives import part_count, source_part
from cloacina_operator.core.manifests import (
    ARCHIVE_PATH,
    ARCHIVE_VOLUME,
    FETCH_CONTAINER,
    SCRATCH_PATH,
    SCRATCH_VOLUME,
    Component,
    Manifest,
    PodSettings,
    account_of,
    labels_of,
    metadata_of,
    pod_of,
)
from cloacina_operator.core.merge import merged

TOKEN_VOLUME = "cloacina-token"  # noqa: S105  # a name
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  # where every client looks
SOURCE_VOLUME = "cloacina-source"
SOURCE_PATH = "/cloacina/source"
SECRET_VOLUME = "cloacina-source-secret"  # noqa: S105  # a name
SECRET_PATH = "/cloacina/secret"  # noqa: S105  # a path
TOKEN_SECONDS = 600  # the least that Kubernetes allows
FETCH_RESOURCES: Manifest = {
    "requests": {"cpu": "50m", "memory": "96Mi"},
    "limits": {"memory": "640Mi"},
}
"""The process ends itself at 512 MiB of address space, with a report; what it writes into memory files counts, too."""


def inspection_job(
    package: CloacinaPackage, known: Sequence[str], revision: str | None, settings: PodSettings, limits: Limits
) -> Manifest:
    """``known``: digests of archives for which nothing is to be imported; ``revision``: of the first of them, as its
    source calls it."""
    labels = labels_of(package.name, Component.INSPECTION)
    pod = pod_of(
        package=package,
        digest="",
        parts=0,
        settings=settings,
        labels=labels,
        arguments=[
            "cloaca.processes.inspect",
            *("--timeout", str(settings.import_timeout), "--archive", ARCHIVE_PATH, "--published"),
        ],
        account=None,
        restart="Never",
        archive={"emptyDir": {}},
    )
    account = account_of(package, Component.INSPECTION) or settings.inspection_service_account
    pod["spec"] = _fenced(_own(package, known, revision, settings, limits, pod["spec"]), account)
    identity = (package.metadata.uid, str(package.metadata.generation), package.reconcile_requested_at or "")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata_of(inspection_name(package.name, *identity), package, labels, {}),
        "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": 300, "template": pod},
    }


def awaiting(job: Manifest, every: timedelta, after: timedelta) -> Manifest:
    """An inspection whose ``fetch`` first waits until the source has something new."""
    pod = job["spec"]["template"]
    fetch, *others = pod["spec"]["initContainers"]
    arguments = [f"--every={every.total_seconds():g}", f"--after={after.total_seconds():g}"]
    fetch = {**fetch, "args": [*fetch["args"], *arguments]}
    spec = {**pod["spec"], "initContainers": [fetch, *others]}
    return {**job, "spec": {**job["spec"], "template": {**pod, "spec": spec}}}


def _own(
    package: CloacinaPackage,
    known: Sequence[str],
    revision: str | None,
    settings: PodSettings,
    limits: Limits,
    spec: Manifest,
) -> Manifest:
    """``spec`` with the container that fetches first, over what a podTemplate says of it."""
    theirs = [one for one in spec.get("initContainers", ()) if one.get("name") == FETCH_CONTAINER]
    others = [one for one in spec.get("initContainers", ()) if one.get("name") != FETCH_CONTAINER]
    volumes, mounts, arguments = _source(package, limits)
    ours = {
        "name": FETCH_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": [{"name": "HOME", "value": SCRATCH_PATH}],
        "resources": FETCH_RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    metadata = package.metadata
    always = {
        "image": settings.image,  # it runs nothing of the package, and so needs nothing of its image
        "command": ["python", "-m"],
        "args": [
            "cloaca.processes.fetch",
            *arguments,
            *("--out", ARCHIVE_PATH, f"--package={package.name}", f"--uid={metadata.uid}"),
            f"--namespace={metadata.namespace}",
            *([] if package.spec.digest is None else [f"--digest={package.spec.digest}"]),
            *(f"--known={digest}" for digest in known),
            *([] if revision is None or package.spec.source.url is None else [f"--revision={revision}"]),
            *(["--this-python"] if package.spec.image is None else []),  # else the import says it, in that image
            *policy_as_arguments(settings.sources),
            *limits_as_arguments(limits),
        ],
        "volumeMounts": [
            {"name": SCRATCH_VOLUME, "mountPath": SCRATCH_PATH},
            {"name": ARCHIVE_VOLUME, "mountPath": ARCHIVE_PATH},
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_PATH, "readOnly": True},
            *mounts,
        ],
        "terminationMessagePolicy": "File",
        "terminationMessagePath": "/dev/termination-log",
    }
    fetch = ours
    for patch in (*theirs, always):
        fetch = merged(fetch, patch)
    token = {"name": TOKEN_VOLUME, "projected": {"defaultMode": 0o444, "sources": _token_sources()}}
    named = {volume["name"] for volume in (token, *volumes)}
    kept = [volume for volume in spec.get("volumes", ()) if volume.get("name") not in named]
    return {**spec, "initContainers": [fetch, *others], "volumes": [*kept, token, *volumes]}


def _source(package: CloacinaPackage, limits: Limits) -> tuple[list[Manifest], list[Manifest], list[str]]:
    """(volumes, mounts, arguments) that say where the archive is."""
    source, namespace = package.spec.source, package.metadata.namespace
    if source.config_map is not None:
        name, key = source.config_map.name, source.config_map.key
        parts = [
            {
                "configMap": {
                    "name": source_part(name, number),
                    "optional": True,
                    "items": [{"key": key, "path": f"{number:03d}"}],
                }
            }
            for number in range(part_count(limits.packed_bytes) + 1)
        ]
        volume = {"name": SOURCE_VOLUME, "projected": {"defaultMode": 0o444, "sources": parts}}
        named = f"the ConfigMap {namespace}/{name} with binaryData[{key!r}]"
        mount = {"name": SOURCE_VOLUME, "mountPath": SOURCE_PATH, "readOnly": True}
        return [volume], [mount], ["--parts", SOURCE_PATH, f"--named={named}"]
    arguments = [f"--url={source.url}"]
    if package.spec.secret_ref is None:
        return [], [], arguments
    secret = package.spec.secret_ref.name
    keys = {"secretName": secret, "optional": True, "defaultMode": 0o444}
    arguments += ["--secret", SECRET_PATH, f"--secret-named={namespace}/{secret}"]
    mount = {"name": SECRET_VOLUME, "mountPath": SECRET_PATH, "readOnly": True}
    return [{"name": SECRET_VOLUME, "secret": keys}], [mount], arguments


def _token_sources() -> list[Manifest]:
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]


def _fenced(spec: Manifest, account: str) -> Manifest:
    """``spec`` without any way to the token, or to the source's credentials, from another container than ``fetch``."""
    private = {TOKEN_VOLUME, SECRET_VOLUME}
    containers: dict[str, Any] = {}
    for group in ("initContainers", "containers"):
        containers[group] = [
            one
            if group == "initContainers" and one.get("name") == FETCH_CONTAINER
            else {**one, "volumeMounts": [m for m in one.get("volumeMounts", ()) if m.get("name") not in private]}
            for one in spec.get(group, ())
        ]
    return {
        **{key: value for key, value in spec.items() if key != "serviceAccount"},
        **containers,
        "volumes": [volume if volume["name"] in private else _tokenless(volume) for volume in spec["volumes"]],
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
    }


def _tokenless(volume: Manifest) -> Manifest:
    projected = volume.get("projected")
    if not isinstance(projected, dict):
        return volume
    sources = [one for one in projected.get("sources") or () if "serviceAccountToken" not in one]
    return {**volume, "projected": {**projected, "sources": sources}}
