"""The kinds of ``cloacina.io/v1alpha1``, typed.

Each is loaded when it is first used: the process of a run needs WorkflowRun alone, and the others take longer to load
than all that it does before its first task.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloaca.resources.columns import Column
    from cloaca.resources.ledger import TriggerLedger
    from cloaca.resources.meta import Condition, ObjectMeta, OwnerReference, Resource, owned_by
    from cloaca.resources.package import CloacinaPackage, PackageSpec, PackageStatus
    from cloaca.resources.phases import ConditionStatus, RunPhase, TaskPhase
    from cloaca.resources.ref import API_VERSION, DEFAULT_NAMESPACE, Ref
    from cloaca.resources.run import RunSpec, RunStatus, TaskStatus, WorkflowRun, immutable_faults
    from cloaca.resources.trigger import ConcurrencyPolicy, Trigger, TriggerSpec, TriggerStatus

    KINDS: tuple[type[CloacinaPackage | Trigger | WorkflowRun], ...]
    """What people declare and look at."""
    STORED_KINDS: tuple[type[CloacinaPackage | Trigger | WorkflowRun | TriggerLedger], ...]
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

_KINDS = ("CloacinaPackage", "Trigger", "WorkflowRun")
_LAZY = {
    "API_VERSION": "ref",
    "CloacinaPackage": "package",
    "Column": "columns",
    "ConcurrencyPolicy": "trigger",
    "Condition": "meta",
    "ConditionStatus": "phases",
    "DEFAULT_NAMESPACE": "ref",
    "ObjectMeta": "meta",
    "OwnerReference": "meta",
    "PackageSpec": "package",
    "PackageStatus": "package",
    "Ref": "ref",
    "Resource": "meta",
    "RunPhase": "phases",
    "RunSpec": "run",
    "RunStatus": "run",
    "TaskPhase": "phases",
    "TaskStatus": "run",
    "Trigger": "trigger",
    "TriggerLedger": "ledger",
    "TriggerSpec": "trigger",
    "TriggerStatus": "trigger",
    "WorkflowRun": "run",
    "immutable_faults": "run",
    "owned_by": "meta",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name in ("KINDS", "STORED_KINDS"):
        kinds = _KINDS if name == "KINDS" else (*_KINDS, "TriggerLedger")
        value = tuple(globals().get(kind) or __getattr__(kind) for kind in kinds)
    elif name in _LAZY:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
