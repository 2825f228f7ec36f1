"""The kinds of ``cloacina.io/v1alpha1``, typed."""

from cloaca.resources.columns import Column
from cloaca.resources.ledger import TriggerLedger
from cloaca.resources.meta import (
    API_VERSION,
    DEFAULT_NAMESPACE,
    Condition,
    ConditionStatus,
    ObjectMeta,
    OwnerReference,
    Ref,
    Resource,
    owned_by,
)
from cloaca.resources.package import CloacinaPackage, PackageSpec, PackageStatus
from cloaca.resources.run import RunPhase, RunSpec, RunStatus, TaskPhase, TaskStatus, WorkflowRun, immutable_faults
from cloaca.resources.trigger import ConcurrencyPolicy, Trigger, TriggerSpec, TriggerStatus

KINDS: tuple[type[CloacinaPackage] | type[Trigger] | type[WorkflowRun], ...] = (
    CloacinaPackage,
    Trigger,
    WorkflowRun,
)
"""What people declare and look at."""

STORED_KINDS: tuple[type[CloacinaPackage] | type[Trigger] | type[WorkflowRun] | type[TriggerLedger], ...] = (
    *KINDS,
    TriggerLedger,
)
"""Everything that a store keeps: also what only the operator writes."""

__all__ = [
    "API_VERSION",
    "DEFAULT_NAMESPACE",
    "KINDS",
    "STORED_KINDS",
    "CloacinaPackage",
    "Column",
    "ConcurrencyPolicy",
    "Condition",
    "ConditionStatus",
    "ObjectMeta",
    "OwnerReference",
    "PackageSpec",
    "PackageStatus",
    "Ref",
    "Resource",
    "RunPhase",
    "RunSpec",
    "RunStatus",
    "TaskPhase",
    "TaskStatus",
    "Trigger",
    "TriggerLedger",
    "TriggerSpec",
    "TriggerStatus",
    "WorkflowRun",
    "immutable_faults",
    "owned_by",
]
