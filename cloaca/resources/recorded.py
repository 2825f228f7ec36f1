"""A WorkflowRun as its own process reads it: what stands in its JSON, under the names that ``run`` gives it.

Nothing is checked that the store has checked, and pydantic is never loaded: that alone would take a process of a run
longer than all that it does before its first task. A test holds every field to the types in ``run``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from cloaca.errors import Invalid
from cloaca.resources.phases import ConditionStatus, RunPhase, TaskPhase
from cloaca.resources.ref import DEFAULT_NAMESPACE, Ref, moment_of, rfc3339

T = TypeVar("T")
Document = Mapping[str, Any]

KIND = "WorkflowRun"
PLURAL = "workflowruns"
_NOTHING: Document = {}


class RecordedTask(NamedTuple):
    """As ``TaskStatus``."""

    id: str
    phase: TaskPhase = TaskPhase.PENDING
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    message: str | None = None
    unknown: Document = _NOTHING
    """What a newer version added: it is kept when the status is written."""


class RecordedCondition(NamedTuple):
    """As ``Condition``."""

    type: str
    status: ConditionStatus
    reason: str
    last_transition_time: datetime
    message: str = ""
    observed_generation: int = 0
    unknown: Document = _NOTHING

    def to_json_dict(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "type": self.type,
            "status": self.status.value,
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": rfc3339(self.last_transition_time),
            "observedGeneration": self.observed_generation,
            **self.unknown,
        }


class RecordedStatus(NamedTuple):
    """As ``RunStatus``."""

    phase: RunPhase = RunPhase.PENDING
    tasks: tuple[RecordedTask, ...] = ()
    checkpoint: Mapping[str, dict[str, Any]] = _NOTHING
    context: dict[str, Any] | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    failures: int = 0
    message: str | None = None
    traceback: str | None = None
    pod_name: str | None = None
    conditions: tuple[RecordedCondition, ...] = ()
    observed_generation: int = 0
    unknown: Document = _NOTHING


class RecordedRun(NamedTuple):
    """As ``WorkflowRun``, less what its process never asks for."""

    name: str
    namespace: str
    uid: str
    version: str
    """``metadata.resourceVersion``."""
    generation: int
    workflow: str
    context: dict[str, Any]
    cancel: bool
    active_deadline_seconds: int | None
    status: RecordedStatus

    @property
    def ref(self) -> Ref:
        """Where it stands."""
        return Ref(KIND, self.namespace, self.name)


def read_run(document: Document) -> RecordedRun:
    """The run that ``document``, the JSON of a WorkflowRun, is. Raises Invalid where it is none."""
    metadata = document["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace", DEFAULT_NAMESPACE)
    try:
        spec = document["spec"]
        return RecordedRun(
            name=name,
            namespace=namespace,
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            generation=metadata.get("generation", 0),
            workflow=spec["workflow"],
            context=spec.get("context", {}),
            cancel=spec.get("cancel", False),
            active_deadline_seconds=spec.get("activeDeadlineSeconds"),
            status=read_status(document.get("status", _NOTHING)),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Invalid(
            f"{KIND} {namespace}/{name} was stored by another version: {type(error).__name__}: {error}: "
            "upgrade cloacina, or delete it"
        ) from error


def read_status(document: Document) -> RecordedStatus:
    """The status that ``document`` is. Raises KeyError, TypeError or ValueError where it is none."""
    rest = dict(document)
    return RecordedStatus(
        phase=RunPhase(rest.pop("phase", RunPhase.PENDING)),
        tasks=tuple(map(_task, rest.pop("tasks", ()))),
        checkpoint=rest.pop("checkpoint", _NOTHING),
        context=rest.pop("context", None),
        started_at=_if_set(moment_of, rest.pop("startedAt", None)),
        finished_at=_if_set(moment_of, rest.pop("finishedAt", None)),
        attempt=rest.pop("attempt", 0),
        failures=rest.pop("failures", 0),
        message=rest.pop("message", None),
        traceback=rest.pop("traceback", None),
        pod_name=rest.pop("podName", None),
        conditions=tuple(map(_condition, rest.pop("conditions", ()))),
        observed_generation=rest.pop("observedGeneration", 0),
        unknown=rest,
    )


def _task(document: Document) -> RecordedTask:
    rest = dict(document)
    return RecordedTask(
        id=rest.pop("id"),
        phase=TaskPhase(rest.pop("phase", TaskPhase.PENDING)),
        attempts=rest.pop("attempts", 0),
        started_at=_if_set(moment_of, rest.pop("startedAt", None)),
        finished_at=_if_set(moment_of, rest.pop("finishedAt", None)),
        message=rest.pop("message", None),
        unknown=rest,
    )


def _condition(document: Document) -> RecordedCondition:
    rest = dict(document)
    return RecordedCondition(
        type=rest.pop("type"),
        status=ConditionStatus(rest.pop("status")),
        reason=rest.pop("reason"),
        message=rest.pop("message", ""),
        last_transition_time=moment_of(rest.pop("lastTransitionTime")),
        observed_generation=rest.pop("observedGeneration", 0),
        unknown=rest,
    )


def _if_set(read: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else read(value)
