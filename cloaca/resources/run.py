"""WorkflowRun: one execution of a workflow, from submission to its end."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from cloaca.resources.columns import AGE, Column
from cloaca.resources.meta import (
    NAME_RULE,
    AtCreation,
    Conditions,
    Digest,
    JsonObject,
    Name,
    ObjectName,
    PackageReference,
    Resource,
    Schema,
    Time,
    cel,
    keyed_by,
)
from cloaca.resources.names import RESERVED_RUN_NAME
from cloaca.resources.phases import RunPhase, TaskPhase


class TriggerReference(Schema):
    """The trigger that fired a run."""

    name: ObjectName
    """Name of the Trigger object."""
    uid: Name
    """Its uid: a Trigger deleted and made again is another one."""


NAME_RESERVED = (
    "metadata.name must not end in -poller-, -inspect- or -source- and up to 10 letters or digits: the pod of this run "
    "would be taken for one that works for a package; choose another name"
)
_ENDED = "oldSelf.phase in ['Completed', 'Failed', 'Cancelled', 'Deduplicated']"
_PHASE_STAYS = f"!has(oldSelf.phase) || !({_ENDED}) || (has(self.phase) && self.phase == oldSelf.phase)"

PACKAGE_NEEDED = "packageRef must be set: only a program's own runner knows workflows without a package"


class RunSpec(Schema):
    """What is to run. Immutable but for ``cancel``."""

    model_config = ConfigDict(json_schema_extra=cel(("has(self.packageRef)", PACKAGE_NEEDED)))

    MUTABLE: ClassVar[frozenset[str]] = frozenset({"cancel"})
    """The fields that may change after creation; the CRD's rules are made from this, as is ``immutable_faults``."""

    workflow: Name
    """Name of the workflow, as in the code."""
    package_ref: PackageReference | None = None
    """The package that has the workflow. Unset in library mode only, where it is one of the program's own."""
    digest: Digest | None = None
    """The archive that it runs, pinned when it was submitted; unset: the active one when it starts."""
    context: JsonObject = Field(default_factory=dict)
    """What the root tasks get; at most 256 KiB as JSON (store a reference to anything bigger)."""
    trigger_ref: TriggerReference | None = None
    """The trigger that fired it; unset: a person submitted it."""
    key: str | None = Field(default=None, max_length=1024)
    """One run per trigger and key, ever; unset: nothing else is the same fire."""
    fire_id: str | None = Field(default=None, max_length=253)
    """Tells a repeated submission of one fire from another fire that took the name; unset: submitted by hand."""
    replay_of: ObjectName | None = None
    """Name of the run that this one repeats; whoever submits it copies the context. Unset: it is no replay."""
    cancel: bool = Field(
        default=False,
        json_schema_extra=cel(("self || !oldSelf", "cancel cannot be taken back: submit a new run, as a replay")),
    )
    """True: stop it. Cannot be taken back."""
    backoff_limit: int = Field(default=3, ge=0)
    """How often it is tried again when its process died, resuming at the frontier."""
    active_deadline_seconds: int | None = Field(default=None, ge=1)
    """Seconds after its start at which it is stopped and failed; unset: no deadline."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)
    """Seconds after its end at which it is deleted; unset: the history limits of its trigger alone decide."""


class TaskStatus(Schema):
    """One task of a run."""

    id: str
    """As in the code."""
    phase: TaskPhase = TaskPhase.PENDING
    """Where it is."""
    attempts: int = 0
    """How often it was started."""
    started_at: Time | None = None
    """Of the first attempt; unset: it did not start."""
    finished_at: Time | None = None
    """Of the last attempt; unset: it did not end."""
    message: str | None = None
    """Why it failed or was skipped."""


class RunStatus(Schema):
    """Written by the run's own process; closed by the operator where that died without a word."""

    model_config = ConfigDict(json_schema_extra=cel((_PHASE_STAYS, "a run that has ended keeps its phase")))

    phase: RunPhase = RunPhase.PENDING
    """Where it is. The last four are terminal and never overwritten."""
    tasks: tuple[TaskStatus, ...] = Field(default=(), json_schema_extra=keyed_by("id"))
    """In topological order."""
    checkpoint: dict[str, JsonObject] = Field(default_factory=dict)
    """Task id → context, for the finished tasks that some unfinished task still needs; no more."""
    context: JsonObject | None = None
    """The final context; set when the run completed."""
    started_at: Time | None = None
    """When its first process began; unset: it did not."""
    finished_at: Time | None = None
    """When it ended; unset: it did not."""
    attempt: int = 0
    """Which process it is, from 1; 0: none was started."""
    failures: int = 0
    """How many of its processes died without a word; ``backoffLimit`` counts these."""
    message: str | None = None
    """Why it failed or waits, for a person."""
    traceback: str | None = None
    """Of the task that failed the run."""
    pod_name: str | None = None
    """The pod, or the local process, of the last attempt."""
    conditions: Conditions = ()
    """Started (False says what it waits for) and the sum, Ready: it completed."""
    observed_generation: int = Field(default=0, ge=0)
    """The metadata.generation that was looked at; an older one than the object's: out of date."""


class WorkflowRun(Resource[RunSpec, RunStatus]):
    """One execution of a workflow."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            NAME_RULE, AtCreation(f"!self.metadata.name.matches('{RESERVED_RUN_NAME}')", NAME_RESERVED)
        )
    )

    KIND: ClassVar[str] = "WorkflowRun"
    PLURAL: ClassVar[str] = "workflowruns"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("crun",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column(header="Workflow", path=".spec.workflow", description="What it runs."),
        Column(header="Phase", path=".status.phase", description="Where it is."),
        Column(header="Trigger", path=".spec.triggerRef.name", description="Which trigger fired it; empty: a person."),
        Column(header="Started", path=".status.startedAt", type="date", description="Since its first process began."),
        Column(header="Finished", path=".status.finishedAt", type="date", description="Since it ended."),
        AGE,
        Column(header="Package", path=".spec.packageRef.name", priority=1, description="Which package has it."),
        Column(header="Key", path=".spec.key", priority=1, description="One run per trigger and key, ever."),
        Column(
            header="Attempt", path=".status.attempt", type="integer", priority=1, description="Which process it is."
        ),
        Column(header="Message", path=".status.message", priority=1, description="Why it failed or waits."),
    )
    SELECTABLE: ClassVar[tuple[str, ...]] = (".spec.packageRef.name",)

    kind: Literal["WorkflowRun"] = "WorkflowRun"
    status: RunStatus = Field(default_factory=RunStatus)


def immutable_faults(old: WorkflowRun, new: WorkflowRun) -> list[str]:
    """What ``new`` changes of ``old`` although it may not, a sentence each; empty: the change is allowed.

    The API server refuses the same by the rules in the CRD.
    """
    faults = []
    if old.status.phase.finished and new.status.phase is not old.status.phase:
        faults.append(
            f"{old.ref}: status.phase: a run that has ended keeps its phase: {old.status.phase.value} "
            f"cannot become {new.status.phase.value}"
        )
    if old.spec.cancel and not new.spec.cancel:
        faults.append(f"{old.ref}: spec.cancel: cancel cannot be taken back: submit a new run, as a replay")
    for field, info in RunSpec.model_fields.items():
        if field not in RunSpec.MUTABLE and getattr(old.spec, field) != getattr(new.spec, field):
            faults.append(f"{old.ref}: spec.{info.alias}: cannot be changed: submit a new run instead")
    return faults
