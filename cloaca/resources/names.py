"""Derive the names and labels of objects. Pure: the same input gives the same name, which is what makes names locks.

Every name is a valid DNS-1123 label, and every label value is valid, whatever text went in.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache

OBJECT_NAME_LIMIT = 52  # a Job's or a Deployment's pods append a suffix and must stay within 63
TRIGGER_NAME_LIMIT = 40  # leaves a run of the trigger room for "-" and the hash of its key
RUN_NAME_LIMIT = 52
LABEL_VALUE_LIMIT = 63

PACKAGE_LABEL = "cloacina.io/package"
"""On triggers and runs: the name of their CloacinaPackage."""
TRIGGER_LABEL = "cloacina.io/trigger"
"""On runs: the name of the Trigger object that fired them; absent on runs by hand."""
WORKFLOW_LABEL = "cloacina.io/workflow"
"""On runs: the name of their workflow."""
RUN_LABEL = "cloacina.io/run"
"""On Jobs and pods: the name of the WorkflowRun that they execute."""
COMPONENT_LABEL = "cloacina.io/component"
"""On everything that the operator makes on a cluster: poller, run, inspection or archive."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "cloacina"
DIGEST_ANNOTATION = "cloacina.io/digest"
"""On Deployments, Jobs and ConfigMaps: the archive that they are for."""
ATTEMPT_ANNOTATION = "cloacina.io/attempt"
"""On the Job of a run: which attempt it is."""

MAIN_CONTAINER = "main"
"""The container of a pod that runs the package's code; a podTemplate adds to it under this name."""

CLUSTER_PACKAGE_LIMIT = 39
"""Characters of a package's name on a cluster: longer, and the name of a poller's pod no longer holds it whole."""

RECONCILE_ANNOTATION = "reconcile.cloacina.io/requestedAt"
"""On a package: a new value has its source asked now, as Flux's annotation of that name does."""
FOLDER_LABEL = "cloacina.io/managed-by"
"""On a CloacinaPackage: that a folder declares it, and no person."""
FOLDER = "folder"
FILES_ANNOTATION = "cloacina.io/files"
"""On a CloacinaPackage that a folder declares: its archives there, so that they are known when they cannot be read."""

TRIGGER_UID_LABEL = "cloacina.io/trigger-uid"
"""On ledgers: the uid of the trigger whose keys they hold."""

KEY_HASH_LENGTH = 10  # 50 bits: two keys of one trigger that collide are as good as never met
SHORT_HASH_LENGTH = 6  # tells apart names that look alike once they are made valid

RESERVED_WORDS = ("poller", "inspect", "source")
"""The admission policies tell by these what a pod is: ``<package>-<word>-<hash>-<5 characters>`` for pods of a package,
``<run>-<5 characters>`` for those of a run."""
RESERVED_TRIGGER_NAME = f"^.+-({'|'.join(RESERVED_WORDS)})$"
"""Of a Trigger whose runs would be named as pods of a package are. RE2 and Python read both patterns."""
RESERVED_RUN_NAME = f"^.+-({'|'.join(RESERVED_WORDS)})-[a-z0-9]{{1,10}}$"
"""Of a run whose pod would be named as a pod of a package is."""

_RESERVED_TRIGGER, _RESERVED_RUN = re.compile(RESERVED_TRIGGER_NAME), re.compile(RESERVED_RUN_NAME)
_VALID_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_VALID_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


def object_name(text: str, limit: int = OBJECT_NAME_LIMIT) -> str:
    """A DNS-1123 label of at most ``limit`` characters for any text; a valid one stays as it is.

    ``_`` and ``.`` become ``-`` and letters lower case, silently, since ``data_ingest`` and ``data-ingest`` are one
    name to us. Anything else that is lost, and anything too long, is told by a hash at the end.
    """
    plain = text.lower().replace("_", "-").replace(".", "-")
    if len(plain) <= limit and _VALID_NAME.fullmatch(plain):
        return plain
    return _shortened(re.sub(r"[^a-z0-9]+", "-", plain), digest(text, length=SHORT_HASH_LENGTH), limit)


def second_package_name(package: str) -> str:
    """Of the CloacinaPackage of an archive whose own object name another package has."""
    return _shortened(object_name(package), digest(package, length=SHORT_HASH_LENGTH), OBJECT_NAME_LIMIT)


def trigger_object_name(package: str, trigger: str) -> str:
    """Of the Trigger object that the operator makes: ``<package>-<trigger>``, at most 40 characters, and a hash after
    it where that ends in a reserved word.

    ``package`` is the name of the CloacinaPackage, ``trigger`` the one in the decorator, where case counts: ``Inbox``
    and ``inbox`` of one package get two names. ``data`` with ``ingest_inbox`` and ``data-ingest`` with ``inbox`` do
    not: whoever creates the object and meets one of another owner has to say so.
    """
    plain = f"{object_name(package, 253)}-{object_name(trigger, 253)}"
    if len(plain) <= TRIGGER_NAME_LIMIT and trigger == trigger.lower() and not _RESERVED_TRIGGER.search(plain):
        return plain
    return _shortened(plain, digest(package, trigger, length=SHORT_HASH_LENGTH), TRIGGER_NAME_LIMIT)


def keyed_run_name(trigger_name: str, trigger_uid: str, key: str) -> str:
    """Of the run that a fire with a key makes: one name per trigger (its uid, not only its name) and key, ever."""
    return _run_name(trigger_name, key_hash(trigger_uid, key))


def key_hash(trigger_uid: str, key: str) -> str:
    """What stands for a key in the names of runs and in the ledger of the trigger."""
    return digest(trigger_uid, key, length=KEY_HASH_LENGTH)


def ledger_name(trigger_name: str, trigger_uid: str, segment: int) -> str:
    """Of one part of a trigger's ledger."""
    return _run_name(trigger_name, f"{digest(trigger_uid, length=KEY_HASH_LENGTH)}-{segment}")


def tick_run_name(trigger_name: str, tick: int, index: int | None = None) -> str:
    """Of the run that a fire without a key makes; ``index`` counts the fires of one tick, None where it has one."""
    return _run_name(trigger_name, str(tick) if index is None else f"{tick}-{index}")


def scheduled_run_name(trigger_name: str, moment: int) -> str:
    """Of the run that a schedule makes for a time, in seconds since 1970: whoever looks at the clock finds it."""
    return _run_name(trigger_name, f"at-{moment}")


def tick_of(trigger_name: str, run_name: str) -> int | None:
    """The tick whose only fire made a run of that name; None: no such tick has that name."""
    last = run_name.rpartition("-")[2]
    if not (last.isascii() and last.isdigit()) or tick_run_name(trigger_name, int(last)) != run_name:
        return None
    return int(last)


def manual_run_name(base: str, unique: str) -> str:
    """Of a run that a person starts: ``<base>-<unique>``; whoever calls brings something unique."""
    suffix = object_name(unique, RUN_NAME_LIMIT // 2)
    if _RESERVED_RUN.search(f"x-{suffix}"):
        suffix = f"{suffix}-{digest(unique, length=11)}"  # longer than what such a pod has there
    return _run_name(base, suffix)


def run_labels(package: str | None = None, trigger: str | None = None, workflow: str | None = None) -> dict[str, str]:
    """The labels of a run; a None is left out."""
    named = {PACKAGE_LABEL: package, TRIGGER_LABEL: trigger, WORKFLOW_LABEL: workflow}
    return {label: label_value(name) for label, name in named.items() if name is not None}


def trigger_labels(package: str) -> dict[str, str]:
    """The labels of a Trigger object that the operator makes."""
    return {PACKAGE_LABEL: label_value(package)}


def poller_name(package: str) -> str:
    """Of the Deployment that polls a package; its pods are ``<package>-poller-<hash>-<5 characters>``."""
    return f"{package}-poller"


def inspection_name(package: str, *identity: str) -> str:
    """Of the Job that fetches and imports an archive; ``identity`` is what makes it another inspection. An admission
    policy reads the package's name back from the name of its pod."""
    return f"{package}-inspect-{digest(package, *identity, length=8)}"


def source_name(package: str) -> str:
    """Of the Deployment that asks the source of a package for news."""
    return f"{package}-source"


def archive_name(package: str, package_uid: str, archive_digest: str) -> str:
    """What the names of the ConfigMaps begin with in which an archive of a package is; a policy reads it back, too."""
    return f"{package}-{digest(package_uid, archive_digest, length=12)}"


def archive_part_name(package: str, package_uid: str, archive_digest: str, part: int) -> str:
    """Of one of the ConfigMaps from which a package's pods mount an archive."""
    return f"{archive_name(package, package_uid, archive_digest)}-{part:03d}"


def archive_manifest_name(package: str, package_uid: str, archive_digest: str) -> str:
    """Of the ConfigMap with the manifest of an archive, where it is too long for a report."""
    return f"{archive_name(package, package_uid, archive_digest)}-manifest"


def label_value(text: str) -> str:
    """``text`` where it is a valid label value, else one that shows what it can and ends in a hash of the whole."""
    if len(text) <= LABEL_VALUE_LIMIT and _VALID_LABEL_VALUE.fullmatch(text):
        return text
    return _shortened(re.sub(r"[^-A-Za-z0-9_.]+", "-", text), digest(text, length=SHORT_HASH_LENGTH), LABEL_VALUE_LIMIT)


def digest(*parts: str, length: int) -> str:
    """``length`` characters a-z and 2-7 of the SHA-256 over ``parts``, joined by NUL."""
    hashed = hashlib.sha256(b"\0".join(_bytes(parts))).digest()
    return base64.b32encode(hashed).decode().lower().rstrip("=")[:length]


def _bytes(parts: Iterable[str]) -> Iterable[bytes]:
    return (part.encode("utf-8", "surrogatepass") for part in parts)  # a file name may hold any byte


def _run_name(base: str, suffix: str) -> str:
    """``<base>-<suffix>``, with the base shortened and hashed where that is too long, and hashed where the name
    would be that of another kind of pod: the suffix stays whole."""
    limit = RUN_NAME_LIMIT - len(suffix) - 1
    name = f"{_beginning(base, limit)}-{suffix}"
    if _RESERVED_RUN.search(name):
        hashed = digest(base, length=SHORT_HASH_LENGTH)
        return f"{_shortened(_beginning(base, limit), hashed, limit)}-{suffix}"
    return name


_beginning = lru_cache(maxsize=256)(object_name)  # the same for all runs of a workflow or a trigger


def _shortened(text: str, hashed: str, limit: int) -> str:
    head = text[: limit - len(hashed) - 1].strip("-_.")
    return f"{head}-{hashed}" if head else f"x-{hashed}"
