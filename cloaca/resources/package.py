"""CloacinaPackage: where an archive is, and how its pollers and runs are to be run."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from cloaca.resources.columns import AGE, Column, condition_column
from cloaca.resources.meta import (
    CONFIG_MAP_KEY,
    SOURCE_URL,
    Conditions,
    Digest,
    JsonObject,
    ObjectName,
    PullInterval,
    Resource,
    Schema,
    Time,
    cel,
    keyed_by,
)
from cloaca.resources.names import RECONCILE_ANNOTATION

_JSON: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


SIGNATURES_UNSUPPORTED = (
    "signatures are not checked by this version: remove spec.verify, and set spec.digest to accept one archive only"
)
# Only the API server checks these two: the types read what was stored before there were such rules, and the daemon on a
# person's own machine may fetch over http.
_SCHEME_UNSUPPORTED = (
    "s3, gs, az and oci sources are not supported by this version: use an https URL, or a ConfigMap (cloaca deploy)"
)
_HTTP_UNPINNED = "over http anybody on the way can change the archive: use https, or set spec.digest"


_ONE_ACCOUNT = "poller and run must be different accounts: a run must not have the rights of the poller"


class TriggerCreation(str, Enum):
    """Who makes the Trigger objects of a package."""

    AUTO = "Auto"
    """The operator makes one for each trigger of the manifest, once, and never touches it again."""
    MANUAL = "Manual"
    """A person applies them."""


class ConfigMapSource(Schema):
    """A ConfigMap that holds the archive."""

    name: ObjectName
    """Name of the ConfigMap, which is in the package's namespace."""
    key: str = Field(default="package.cloacina", min_length=1, max_length=253, pattern=CONFIG_MAP_KEY)
    """Key in its binaryData."""


class PackageSource(Schema):
    """Where the archive is: exactly one of ``url`` and ``configMap``."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("has(self.url) != has(self.configMap)", "exactly one of url and configMap must be set"),
            ("!has(self.url) || !self.url.matches('^(s3|gs|az|oci)://')", _SCHEME_UNSUPPORTED),
        )
    )

    url: str | None = Field(default=None, max_length=2048, pattern=SOURCE_URL)
    """Pull from here: https, or http where ``digest`` is set; file in the local daemon only. Credentials go into
    secretRef. A cluster refuses s3, gs, az and oci URLs: this version cannot pull from them."""
    config_map: ConfigMapSource | None = None
    """Read from a ConfigMap, or several where it does not fit into one; `cloaca deploy` makes them."""

    @model_validator(mode="after")
    def _exactly_one(self) -> PackageSource:
        if (self.url is None) == (self.config_map is None):
            raise ValueError("exactly one of url and configMap must be set")
        return self


class SecretReference(Schema):
    """A Secret in the package's namespace."""

    name: ObjectName
    """Name of the Secret."""


class Verification(Schema):
    """Which signatures are accepted. This version checks none, so a package that has keys here is refused."""

    model_config = ConfigDict(
        json_schema_extra=cel(("!has(self.publicKeys) || size(self.publicKeys) == 0", SIGNATURES_UNSUPPORTED))
    )

    public_keys: tuple[str, ...] = Field(default=(), max_length=16)
    """PEM-encoded. Must be empty: signatures are not checked by this version."""


class ServiceAccounts(Schema):
    """The service accounts of a package's pods, which are in its namespace and bound to the roles that each needs."""

    model_config = ConfigDict(
        json_schema_extra=cel(("!has(self.poller) || !has(self.run) || self.poller != self.run", _ONE_ACCOUNT))
    )

    poller: ObjectName | None = None
    """Of the poller; unset: the one that the operator was set up with."""
    run: ObjectName | None = None
    """Of runs; unset: the one that the operator was set up with."""
    inspection: ObjectName | None = None
    """Of inspections; unset: the one that the operator was set up with."""

    @model_validator(mode="after")
    def _one_each(self) -> ServiceAccounts:
        if self.poller is not None and self.poller == self.run:
            raise ValueError(_ONE_ACCOUNT)
        return self


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

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.source.url) || !self.source.url.startsWith('http://') || has(self.digest)", _HTTP_UNPINNED)
        )
    )

    source: PackageSource
    """Where the archive is."""
    secret_ref: SecretReference | None = None
    """Credentials for the source."""
    digest: Digest | None = None
    """Pin: an archive with any other digest is refused. Unset: whatever the source gives is looked at, which a cluster
    refuses for an http URL."""
    verify: Verification | None = None
    """Which signatures are accepted. Keys in it are refused: signatures are not checked by this version."""
    interval: PullInterval | None = None
    """How often the source is pulled again; unset or 0s: only when the spec changes."""
    triggers: TriggerCreation = TriggerCreation.AUTO
    """Who makes the Trigger objects."""
    suspend: bool = False
    """True: nothing is pulled and nothing is polled; runs that exist finish."""
    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """Runtime image; unset: the operator's own."""
    pod_template: dict[str, Any] | None = Field(
        default=None, json_schema_extra={"properties": {"metadata": _JSON, "spec": _JSON}}
    )
    """Partial pod template, merged strategically over ours: env, envFrom, resources, volumes, nodeSelector … A service
    account in it is ignored: set serviceAccounts."""
    service_accounts: ServiceAccounts | None = None
    """Service accounts of the pods, by what the pods are for; unset: those that the operator was set up with."""
    runs: RunDefaults = Field(default_factory=RunDefaults, json_schema_extra={"default": {}})
    """Defaults for the package's runs."""

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
    """Of the archive: sha256:…"""
    name: str | None = None
    """Name of the package, as its manifest says; unset: it was accepted by an older operator."""
    version: str
    """As its manifest says."""
    since: Time
    """When it was accepted."""


class CandidatePackage(Schema):
    """An archive that is being looked at, or was refused; the active one stays in place meanwhile."""

    digest: str | None = None
    """Of the archive; unset: the bytes could not even be had."""
    version: str | None = None
    """As its manifest says; unset: it could not be read."""
    since: Time
    """When it was first seen."""


class WorkflowEntry(Schema):
    """One workflow of the active archive."""

    name: str
    """As in the code."""
    description: str = ""
    """As in the code."""
    tasks: tuple[str, ...] = ()
    """Ids of its tasks."""


class TaskEntry(Schema):
    """One task of the active archive."""

    id: str
    """As in the code."""
    dependencies: tuple[str, ...] = ()
    """Ids of the tasks whose contexts it gets."""


class TriggerEntry(Schema):
    """One trigger of the active archive, as its manifest declares it."""

    name: str
    """As in the decorator."""
    workflow: str
    """The workflow that it fires."""
    poll_interval: str
    """How often its function is called."""
    allow_concurrent: bool = False
    """Whether its runs may overlap."""
    config: JsonObject = Field(default_factory=dict)
    """What its function gets as ``config``."""


class HistoryEntry(Schema):
    """One archive that was accepted or refused."""

    digest: str | None = None
    """Of the archive; unset: the bytes could not be had."""
    version: str | None = None
    """As its manifest says; unset: it could not be read."""
    time: Time
    """When it was decided."""
    accepted: bool
    """Whether it became the active one."""
    message: str = ""
    """Why it was refused."""


class PackageStatus(Schema):
    """What the operator observed of a package."""

    observed_generation: int = 0
    """The metadata.generation that was looked at; an older one than the object's: out of date."""
    last_handled_reconcile_at: str | None = Field(default=None, json_schema_extra={"maxLength": 256})
    """The value of the annotation reconcile.cloacina.io/requestedAt for which the source was last asked."""
    conditions: Conditions = ()
    """Fetched, Verified, Agreed, Polling and their sum, Ready."""
    active: ActivePackage | None = None
    """The archive that pollers and new runs use; unset: none was accepted yet."""
    candidate: CandidatePackage | None = None
    """A newer archive that is being looked at or was refused; unset: there is none."""
    workflows: tuple[WorkflowEntry, ...] = Field(default=(), json_schema_extra=keyed_by("name"))
    """Of the active archive."""
    tasks: tuple[TaskEntry, ...] = Field(default=(), json_schema_extra=keyed_by("id"))
    """Of the active archive."""
    triggers: tuple[TriggerEntry, ...] = Field(default=(), json_schema_extra=keyed_by("name"))
    """Of the active archive."""
    trigger_count: int = 0
    """How many triggers the active archive has: a table cannot count them."""
    warnings: tuple[str, ...] = ()
    """What is odd about the active archive or the spec, but no reason to refuse it."""
    history: tuple[HistoryEntry, ...] = ()
    """Newest first, at most 10."""


class CloacinaPackage(Resource[PackageSpec, PackageStatus]):
    """An archive of workflows and triggers, declared."""

    KIND: ClassVar[str] = "CloacinaPackage"
    PLURAL: ClassVar[str] = "cloacinapackages"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("cpkg",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column(header="Version", path=".status.active.version", description="Of the active archive."),
        condition_column("Ready", "Ready", description="Whether an archive is active and works."),
        condition_column("Reason", "Ready", "reason", description="Why Ready is what it is."),
        Column(header="Triggers", path=".status.triggerCount", type="integer", description="Of the active archive."),
        AGE,
        Column(header="Digest", path=".status.active.digest", priority=1, description="Of the active archive."),
        Column(header="Suspended", path=".spec.suspend", type="boolean", priority=1, description="Whether it rests."),
        condition_column("Message", "Ready", "message", priority=1, description="What is wrong, and what to do next."),
    )

    kind: Literal["CloacinaPackage"] = "CloacinaPackage"
    status: PackageStatus = Field(default_factory=PackageStatus)

    @property
    def reconcile_requested_at(self) -> str | None:
        """What a person set to have the source asked now: any other value than before does; None: nobody did."""
        requested = self.metadata.annotations.get(RECONCILE_ANNOTATION)
        return None if requested is None else requested[:256]  # of an annotation that may be a quarter of a megabyte

    @property
    def accepted_digests(self) -> frozenset[str]:
        """Digests of the archives that a run of this package may pin: the active one, and those accepted before it
        that ``status.history`` still has."""
        digests = {entry.digest for entry in self.status.history if entry.accepted and entry.digest is not None}
        if self.status.active is not None:
            digests.add(self.status.active.digest)
        return frozenset(digests)
