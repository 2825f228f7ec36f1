"""What every resource has: metadata, references, conditions. Typed after the Kubernetes API conventions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

GROUP = "cloacina.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
DEFAULT_NAMESPACE = "default"


def rfc3339(moment: datetime) -> str:
    """``moment`` in UTC as Kubernetes writes micro-times: ``2026-03-28T09:00:00.000000Z``."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]


class Schema(BaseModel):
    """Base of everything that enters as YAML or JSON: camelCase outside, frozen, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=False,
    )

    def to_json_dict(self) -> dict[str, Any]:
        """As it is written to YAML, JSON and the store: camelCase, without what is unset (null)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(Schema):
    """The object whose deletion deletes this one."""

    api_version: str = API_VERSION
    kind: str
    name: str
    uid: str
    controller: bool = True
    block_owner_deletion: bool = False


class ObjectMeta(Schema):
    """The part of metadata that we read; the store fills in what a person leaves out."""

    model_config = ConfigDict(extra="ignore")  # managedFields, finalizers and what else an API server adds

    name: str = ""
    namespace: str = DEFAULT_NAMESPACE
    uid: str = ""
    resource_version: str = ""
    """Opaque; moves with every write. A write that carries an old one is refused with Conflict."""
    generation: int = 0
    """Moves with spec only, from 1."""
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()


class ConditionStatus(str, Enum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Schema):
    """One observation about an object, readable by kstatus and ``kubectl wait``."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    last_transition_time: Time
    observed_generation: int = 0


@dataclass(frozen=True, order=True)
class Ref:
    """Which object: enough to look it up, nothing of what it says."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


SpecT = TypeVar("SpecT", bound=Schema)
StatusT = TypeVar("StatusT", bound=Schema)


class Resource(Schema, Generic[SpecT, StatusT]):
    """One object of a kind. Frozen: change it with ``with_spec``/``with_status`` and write it to a store."""

    KIND: ClassVar[str]
    PLURAL: ClassVar[str]
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ()

    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: SpecT
    status: StatusT

    @property
    def ref(self) -> Ref:
        """Where it stands."""
        return Ref(self.KIND, self.metadata.namespace, self.metadata.name)

    @property
    def name(self) -> str:
        """``metadata.name``."""
        return self.metadata.name

    def with_status(self, **changes: Any) -> Any:
        """A copy whose status has ``changes`` (snake_case field names); everything else as it is."""
        return self.model_copy(update={"status": self.status.model_copy(update=changes)})

    def with_spec(self, **changes: Any) -> Any:
        """A copy whose spec has ``changes`` (snake_case field names); everything else as it is."""
        return self.model_copy(update={"spec": self.spec.model_copy(update=changes)})

    def with_metadata(self, **changes: Any) -> Any:
        """A copy whose metadata has ``changes`` (snake_case field names); everything else as it is."""
        return self.model_copy(update={"metadata": self.metadata.model_copy(update=changes)})


def owned_by(owner: Resource[Any, Any]) -> OwnerReference:
    """The reference that makes an object go when ``owner`` goes."""
    return OwnerReference(kind=owner.KIND, name=owner.metadata.name, uid=owner.metadata.uid)


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether ``labels`` carry every pair of ``selector`` (equality-based, as ``kubectl -l a=b,c=d``)."""
    return all(labels.get(key) == value for key, value in selector.items())
