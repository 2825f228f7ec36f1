"""What every resource has: metadata, references, conditions. Typed after the Kubernetes API conventions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from cloaca.resources.columns import Column
from cloaca.resources.phases import ConditionStatus
from cloaca.resources.ref import API_VERSION, DEFAULT_NAMESPACE, Ref, rfc3339
from cloaca.resources.spans import parse_span

if TYPE_CHECKING:
    from typing_extensions import Self

# Go's, Rust's and Python's regular expressions all read these: the API server, pydantic and the tests do.
DURATION = r"^([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|ms|s|m|h)){1,6}$"
DATE_TIME = (
    r"^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
"""RFC 3339 in the years that calendars of every language hold, without leap seconds."""
CONDITION_TYPE = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
)
CONDITION_REASON = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
CONFIG_MAP_KEY = r"^[-._a-zA-Z0-9]+$"
SOURCE_URL = r"^((https?|s3|gs|az|oci)://[^/@\s]+/\S+|file:///\S+)$"
TIME_ZONE = r"^[A-Za-z][-+A-Za-z0-9_/]*$"

PATTERNS = {
    DURATION: "a duration: numbers with ns, us, ms, s, m or h, such as 500ms, 1.5s or 1h30m",
    CONDITION_TYPE: "a word in CamelCase, after a domain and '/' where it is not ours",
    CONDITION_REASON: "one word in CamelCase",
    DIGEST: "sha256: and 64 hexadecimal digits",
    OBJECT_NAME: "the name of an object: lower case letters, digits, '-' and '.'",
    CONFIG_MAP_KEY: "a key of a ConfigMap: letters, digits, '-', '_' and '.'",
    SOURCE_URL: "an http, https or file URL with a path and without user or password",
    TIME_ZONE: "an IANA time zone, such as Europe/Zurich",
}
"""Pattern → what it asks for, in words."""


Time = Annotated[AwareDatetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
Digest = Annotated[str, Field(max_length=71, pattern=DIGEST)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=OBJECT_NAME)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
"""Of a workflow, a task or a trigger function: whatever the code calls it."""
JsonObject = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


def keyed_by(field: str) -> dict[str, Any]:
    """Schema of a list whose entries are told apart by one field: two writers may each own some of them."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [field]}


class AtCreation(NamedTuple):
    """A rule for new objects only: what is stored already can still be updated."""

    rule: str
    message: str


def cel(*rules: tuple[str, str] | AtCreation) -> dict[str, Any]:
    """Schema of rules that the API server checks: pairs of a CEL expression and what to say where it is false."""
    return {"x-kubernetes-validations": [_rule(rule) for rule in rules]}


def _rule(stated: tuple[str, str] | AtCreation) -> dict[str, Any]:
    rule, message = stated
    if isinstance(stated, AtCreation):
        return {"rule": f"oldSelf.hasValue() || {rule}", "message": message, "optionalOldSelf": True}
    return {"rule": rule, "message": message}


NAME_RULE = (
    "self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "metadata.name must be at most 52 lower case letters, digits and '-': names of pods are made from it",
)
"""Of every kind."""


def _at_least(shortest: str, *, or_zero: bool = False) -> AfterValidator:
    def check(text: str) -> str:
        seconds = parse_span(text)
        if seconds < parse_span(shortest) and not (or_zero and seconds == 0):
            raise ValueError(f"must be a duration of at least {shortest}, such as 5s or 1h30m: {text!r} is shorter")
        return text

    return AfterValidator(check)


def _span(shortest: str, *, or_zero: bool = False) -> dict[str, Any]:
    """Schema of a duration that the API server compares as Go does."""
    zero = "duration(self) == duration('0s') || " if or_zero else ""
    return {
        "maxLength": 64,
        **cel(
            (f"{zero}duration(self) >= duration('{shortest}')", f"must be a duration of at least {shortest}"),
            ("duration(self) <= duration('999999h')", "must be a duration of at most 999999h"),
        ),
    }


Duration = Annotated[str, Field(pattern=DURATION, json_schema_extra=_span("1ms")), _at_least("1ms")]
PollInterval = Annotated[str, Field(pattern=DURATION, json_schema_extra=_span("100ms")), _at_least("100ms")]
PullInterval = Annotated[
    str, Field(pattern=DURATION, json_schema_extra=_span("100ms", or_zero=True)), _at_least("100ms", or_zero=True)
]

_new, _set = object.__new__, object.__setattr__


class Schema(BaseModel):
    """Base of everything that enters as YAML or JSON: camelCase outside, frozen, unknown fields refused.

    The docstrings under the fields reach ``kubectl explain`` and the reference page. Only the generator reads them:
    pydantic's own ``use_attribute_docstrings`` would parse this source whenever a process starts.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        validate_default=False,
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, in a quarter of its time: a run makes a dozen copies, and what is frozen may be shared."""
        if deep:
            return super().model_copy(update=update, deep=True)
        fields, extra, set_ = self.__dict__, self.__pydantic_extra__, self.__pydantic_fields_set__
        if update:
            if extra is not None:
                return super().model_copy(update=update)
            fields = {**fields, **update}
            set_ = set_.union(update)
        new = _new(type(self))
        _set(new, "__dict__", fields if update else {**fields})
        _set(new, "__pydantic_fields_set__", set_)
        _set(new, "__pydantic_extra__", extra)
        _set(new, "__pydantic_private__", self.__pydantic_private__)
        return new

    def to_json_dict(self) -> dict[str, Any]:
        """As it is written to YAML, JSON and the store: camelCase, without what is unset (null)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class PackageReference(Schema):
    """A CloacinaPackage in the same namespace."""

    name: ObjectName
    """Name of the CloacinaPackage."""


class OwnerReference(Schema):
    """The object whose deletion deletes this one."""

    api_version: str = API_VERSION
    """Group and version of the owner."""
    kind: str
    """Kind of the owner."""
    name: str
    """Name of the owner, which is in the same namespace."""
    uid: str
    """Uid of the owner: another object of the same name is not meant."""
    controller: bool = True
    """Whether the owner is the one that reconciles this object; at most one is."""
    block_owner_deletion: bool = False
    """Whether a foreground deletion of the owner waits for this object."""


class ObjectMeta(Schema):
    """The part of metadata that we read; the store fills in what a person leaves out."""

    model_config = ConfigDict(extra="ignore")  # managedFields, finalizers and what else an API server adds

    name: str = ""
    """Unique among the objects of its kind in the namespace."""
    namespace: str = DEFAULT_NAMESPACE
    """The space in which names are unique and references are looked up."""
    uid: str = ""
    """Given by the store; another object under the same name has another one."""
    resource_version: str = ""
    """Opaque; moves with every write. A write that carries an old one is refused with Conflict."""
    generation: int = 0
    """Moves with spec only, from 1."""
    creation_timestamp: Time | None = None
    """When the store created it."""
    deletion_timestamp: Time | None = None
    """When its deletion was asked for; unset: it was not."""
    labels: dict[str, str] = Field(default_factory=dict)
    """For selecting objects."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """For notes that nothing selects by."""
    owner_references: tuple[OwnerReference, ...] = ()
    """The objects with which this one goes."""


class Condition(Schema):
    """One observation about an object, readable by kstatus and ``kubectl wait``."""

    model_config = ConfigDict(
        json_schema_extra={"required": ["lastTransitionTime", "message", "reason", "status", "type"]}
    )

    type: str = Field(json_schema_extra={"maxLength": 316, "pattern": CONDITION_TYPE})
    """What is observed, in CamelCase."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: str = Field(json_schema_extra={"minLength": 1, "maxLength": 1024, "pattern": CONDITION_REASON})
    """Why, as one CamelCase word for programs."""
    message: str = Field(default="", json_schema_extra={"maxLength": 32768})
    """Why, and what to do next, for a person."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: int = 0
    """The metadata.generation that was looked at; an older one than the object's: out of date."""


Conditions = Annotated[tuple[Condition, ...], Field(json_schema_extra=keyed_by("type"))]


SpecT = TypeVar("SpecT", bound=Schema)
StatusT = TypeVar("StatusT", bound=Schema)


class Resource(Schema, Generic[SpecT, StatusT]):
    """One object of a kind. Frozen: change it with ``with_spec``/``with_status`` and write it to a store."""

    model_config = ConfigDict(json_schema_extra=cel(NAME_RULE))

    KIND: ClassVar[str]
    PLURAL: ClassVar[str]
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ()
    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    """What a table shows of it, after its name."""
    SELECTABLE: ClassVar[tuple[str, ...]] = ()
    """Paths of fields by which an API server selects objects of it."""

    api_version: Literal["cloacina.io/v1alpha1"] = API_VERSION
    """Group and version of the schema that this object follows."""
    kind: str = ""
    """What this object is."""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    """Name, labels and what the store keeps about the object."""
    spec: SpecT
    """What a person asks for."""
    status: StatusT
    """What was observed; only programs write it."""

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
