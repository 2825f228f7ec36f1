"""CloacinaPackage: where an archive is, and how its pollers and runs are to be run."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from cloaca.resources.meta import Condition, Resource, Schema, Time


class TriggerCreation(str, Enum):
    """Who makes the Trigger objects of a package."""

    AUTO = "Auto"
    """The operator makes one for each trigger of the manifest, once, and never touches it again."""
    MANUAL = "Manual"
    """A person applies them."""


class ConfigMapSource(Schema):
    """A ConfigMap that holds the archive."""

    name: str
    key: str = "package.cloacina"


class PackageSource(Schema):
    """Where the archive is: exactly one of ``url`` and ``configMap``."""

    url: str | None = None
    """http(s), s3, gs or oci; file in the local daemon only."""
    config_map: ConfigMapSource | None = None
    """A ConfigMap in the package's namespace."""

    @model_validator(mode="after")
    def _exactly_one(self) -> PackageSource:
        if (self.url is None) == (self.config_map is None):
            raise ValueError("exactly one of url and configMap must be set")
        return self


class SecretReference(Schema):
    """A Secret in the package's namespace."""

    name: str


class Verification(Schema):
    """Which signatures are accepted."""

    public_keys: tuple[str, ...] = ()
    """PEM-encoded; a package signed by none of them is refused. Empty: no signature is asked for."""


class RunDefaults(Schema):
    """What a run of this package gets where its trigger or its author says nothing."""

    backoff_limit: int = Field(default=3, ge=0)
    """How often a run whose process died is tried again, resuming at the frontier."""
    active_deadline_seconds: int | None = Field(default=None, ge=1)
    """Seconds after its start at which a run is stopped and failed; unset: no deadline."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)
    """Seconds after its end at which a run is deleted; unset: the history limits of its trigger alone decide."""


class PackageSpec(Schema):
    """What a person declares of a package."""

    source: PackageSource
    secret_ref: SecretReference | None = None
    """Credentials for the source."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """Pin: an archive with any other digest is refused."""
    verify: Verification | None = None
    interval: str | None = Field(default=None, pattern=r"^[0-9]+(ms|s|m|h)$")
    """How often the source is pulled again; unset: only when the spec changes."""
    triggers: TriggerCreation = TriggerCreation.AUTO
    suspend: bool = False
    """True: nothing is pulled and nothing is polled; runs that exist finish."""
    image: str | None = None
    """Runtime image; unset: the operator's own."""
    pod_template: dict[str, Any] | None = None
    """Partial pod template, merged strategically over ours: env, envFrom, resources, volumes, nodeSelector …"""
    runs: RunDefaults = Field(default_factory=RunDefaults)

    @field_validator("pod_template")
    @classmethod
    def _template_shape(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        unknown = set(value or ()) - {"metadata", "spec"}
        if unknown:
            raise ValueError(f"unknown field {min(unknown)!r}: a pod template has metadata and spec")
        return value


class ActivePackage(Schema):
    """The archive that pollers and new runs use."""

    digest: str
    version: str
    since: Time


class CandidatePackage(Schema):
    """An archive that is being looked at, or was refused; the active one stays in place meanwhile."""

    digest: str | None = None
    """Unset: the bytes could not even be had."""
    version: str | None = None
    since: Time


class WorkflowEntry(Schema):
    """One workflow of the active archive."""

    name: str
    description: str = ""
    tasks: tuple[str, ...] = ()


class TaskEntry(Schema):
    """One task of the active archive."""

    id: str
    dependencies: tuple[str, ...] = ()


class TriggerEntry(Schema):
    """One trigger of the active archive, as its manifest declares it."""

    name: str
    workflow: str
    poll_interval: str
    allow_concurrent: bool = False
    config: dict[str, Any] = Field(default_factory=dict)


class HistoryEntry(Schema):
    """One archive that was accepted or refused."""

    digest: str | None = None
    version: str | None = None
    time: Time
    accepted: bool
    message: str = ""


class PackageStatus(Schema):
    """What the operator observed of a package."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    active: ActivePackage | None = None
    candidate: CandidatePackage | None = None
    workflows: tuple[WorkflowEntry, ...] = ()
    tasks: tuple[TaskEntry, ...] = ()
    triggers: tuple[TriggerEntry, ...] = ()
    warnings: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    """Newest first, at most 10."""


class CloacinaPackage(Resource[PackageSpec, PackageStatus]):
    """An archive of workflows and triggers, declared."""

    KIND: ClassVar[str] = "CloacinaPackage"
    PLURAL: ClassVar[str] = "cloacinapackages"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("cpkg",)

    kind: str = "CloacinaPackage"
    status: PackageStatus = Field(default_factory=PackageStatus)
