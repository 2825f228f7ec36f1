"""Say what conditions mean and set them: every type and reason is a documented constant. Pure: no I/O, no clock.

Conditions follow the Kubernetes contract and read well for kstatus (Flux, Argo CD, ``kubectl wait``): ``Ready`` sums an
object up; ``Reconciling``, ``Stalled`` and ``Suspended`` are there only while they are True.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from cloaca.resources.phases import ConditionStatus

if TYPE_CHECKING:
    from cloaca.resources.meta import Condition
    from cloaca.resources.recorded import RecordedCondition

C = TypeVar("C", "Condition", "RecordedCondition")

MESSAGE_LIMIT = 4096  # bytes of UTF-8; the API convention allows 32 KiB, but every watcher carries each copy


class Reason(str):
    """Why a condition has its status: a plain string to everything but the reference page, which reads ``meaning``."""

    __slots__ = ("meaning",)
    meaning: str

    def __new__(cls, value: str, meaning: str) -> Reason:
        """``value`` in CamelCase as it stands in the object; ``meaning`` for a person."""
        reason = super().__new__(cls, value)
        reason.meaning = meaning
        return reason


class ConditionType(str):
    """What a condition observes: a plain string, with its polarity, its meaning and the reasons that it may carry."""

    __slots__ = ("good", "meaning", "reasons")
    good: ConditionStatus
    """The status of a healthy object."""
    meaning: str
    reasons: tuple[Reason, ...]

    def __new__(
        cls, value: str, meaning: str, reasons: Iterable[Reason], good: ConditionStatus = ConditionStatus.TRUE
    ) -> ConditionType:
        """``value`` in CamelCase as it stands in the object."""
        kind = super().__new__(cls, value)
        kind.meaning = meaning
        kind.reasons = tuple(reasons)
        kind.good = good
        return kind


class PodReason:
    """Reasons on a package or run whose pods have trouble on a cluster: Kubernetes' own words, where it has some."""

    IMAGE_PULL = Reason("ImagePullBackOff", "The runtime image cannot be pulled; see spec.image and the pull secrets.")
    CONTAINER_CONFIG = Reason("ContainerConfigError", "A Secret, ConfigMap or setting of the container is not there.")
    UNSCHEDULABLE = Reason("Unschedulable", "No node takes the pod; the message has the scheduler's words.")
    QUOTA_EXCEEDED = Reason("QuotaExceeded", "A ResourceQuota of the namespace refuses the pod.")
    POD_FORBIDDEN = Reason("PodForbidden", "A rule of the namespace, such as pod security, refuses the pod.")
    CRASH_LOOP = Reason("CrashLoopBackOff", "The container ends again and again; the message says how.")
    OUT_OF_MEMORY = Reason("OOMKilled", "The container passed its memory limit and was killed.")
    EVICTED = Reason("Evicted", "The cluster took the pod from its node.")
    POD_DELETED = Reason("PodDeleted", "Somebody deleted the pod, and it left no word.")
    PROCESS_DIED = Reason("ProcessDied", "The process ended without a word; the message has its exit code.")
    DEADLINE_EXCEEDED = Reason("DeadlineExceeded", "The pod outlived the deadline of its run by a minute.")
    POLLER_FAILED = Reason("PollerFailed", "The poller died or cannot be started; it is started again with backoff.")
    NAME_TAKEN = Reason("NameTaken", "A Job or Deployment of that name exists and is not ours; delete or rename it.")
    NAME_TOO_LONG = Reason("NameTooLong", "On a cluster the name of a package has at most 39 characters.")


class PackageReason:
    """Reasons on a CloacinaPackage."""

    FETCHING = Reason("Fetching", "The archive is being pulled from its source.")
    FETCHED = Reason("Fetched", "The archive was pulled and is kept in the store under its digest.")
    FETCH_FAILED = Reason("FetchFailed", "The source did not give the archive; it is tried again, less and less often.")
    SOURCE_UNAVAILABLE = Reason(
        "SourceUnavailable",
        "The file in a watched folder, or the folder, is away or cannot be read; what is active goes on working.",
    )
    SOURCE_UNSUPPORTED = Reason("SourceUnsupported", "This operator cannot pull from such a source; edit spec.source.")
    SUSPENDED = Reason(
        "Suspended", "spec.suspend is true: nothing is pulled, nothing is polled; Ready keeps its status."
    )
    VERIFIED = Reason("Verified", "The archive has the digest that spec.digest pins. Signatures are not checked.")
    DIGEST_MISMATCH = Reason("DigestMismatch", "The source gave other bytes than those that spec.digest pins.")
    SIGNATURES_UNSUPPORTED = Reason(
        "SignaturesUnsupported", "spec.verify has keys, and this version checks no signatures: nothing is fetched."
    )
    INSPECTING = Reason("Inspecting", "The code is being imported in a process of its own, to compare names.")
    AGREED = Reason("Agreed", "Manifest and code name the same workflows, tasks and triggers.")
    ARCHIVE_INVALID = Reason("ArchiveInvalid", "The bytes are no usable archive: not a tar, unsafe, over a limit.")
    MANIFEST_INVALID = Reason("ManifestInvalid", "manifest.json breaks rules; the message lists each with its path.")
    NAMES_DISAGREE = Reason("NamesDisagree", "Manifest and code differ in names; the message lists each difference.")
    PYTHON_UNSUPPORTED = Reason(
        "PythonUnsupported", "The manifest's requires_python does not allow the Python of the runtime."
    )
    TRIGGER_NAME_TAKEN = Reason(
        "TriggerNameTaken", "Another package has a Trigger object of the name that one of this package's needs."
    )
    PACKAGE_NAME_TAKEN = Reason(
        "PackageNameTaken", "Two packages of different names would be one object; rename one, or delete the other."
    )
    IMPORT_FAILED = Reason("ImportFailed", "Importing the entry module raised; the message ends with the traceback.")
    IMPORT_TIMED_OUT = Reason("ImportTimedOut", "Importing the entry module took longer than 60 seconds.")
    IMPORT_CRASHED = Reason("ImportCrashed", "The process that imported the entry module died without an answer.")
    POLLING = Reason("Polling", "The poller runs and calls the triggers of the active archive.")
    POLLER_STARTING = Reason("PollerStarting", "The poller was started and has not reported yet.")
    POLLER_FAILED = Reason("PollerFailed", "The poller died or cannot be started; it is started again with backoff.")
    NO_TRIGGERS = Reason("NoTriggers", "The active archive declares no trigger, so there is nothing to poll.")
    NOTHING_ACTIVE = Reason("NothingActive", "No archive of this package has been accepted yet.")
    READY = Reason("Ready", "The archive that the spec asks for is active.")
    PROGRESSING = Reason("Progressing", "On the way to what the spec asks for; nothing is wrong so far.")
    CANDIDATE_REFUSED = Reason("CandidateRefused", "A newer archive was refused; the active one goes on working.")


class TriggerReason:
    """Reasons on a Trigger."""

    READY = Reason("Ready", "Package, function, workflow and settings were found and fit together.")
    PROGRESSING = Reason("Progressing", "The operator has not looked at this version of the spec yet.")
    PACKAGE_NOT_FOUND = Reason("PackageNotFound", "spec.packageRef names no CloacinaPackage in this namespace.")
    PACKAGE_NOT_READY = Reason("PackageNotReady", "The package has no accepted archive yet.")
    TRIGGER_NOT_DECLARED = Reason("TriggerNotDeclared", "The active archive declares no trigger of this name.")
    WORKFLOW_UNKNOWN = Reason("WorkflowUnknown", "The active archive has no workflow of the name that is to be fired.")
    INTERVAL_INVALID = Reason("IntervalInvalid", "The poll interval is not a duration, such as 500ms or 1h30m.")
    INTERVAL_TOO_SHORT = Reason("IntervalTooShort", "The poll interval is under 100ms.")
    SCHEDULE_INVALID = Reason("ScheduleInvalid", "spec.schedule is no cron expression, or never comes due.")
    TIME_ZONE_UNKNOWN = Reason("TimeZoneUnknown", "spec.timeZone is no IANA time zone.")
    DUPLICATE = Reason("Duplicate", "An older Trigger polls the same function; delete one of the two.")
    POLLING = Reason("Polling", "The function is called at its interval.")
    SCHEDULED = Reason("Scheduled", "The trigger fires by the clock, as spec.schedule says.")
    WAITING_FOR_RUN = Reason("WaitingForRun", "Forbid: the function is not called until the active run has ended.")
    SUSPENDED = Reason("Suspended", "spec.suspend is true.")
    PACKAGE_SUSPENDED = Reason("PackageSuspended", "The package is suspended.")
    NOT_READY = Reason("NotReady", "The Ready condition says what is missing.")
    POLLER_FAILED = Reason("PollerFailed", "The package's poller is not running.")
    HEALTHY = Reason("Healthy", "The last call of the function ended well.")
    RECOVERED = Reason("Recovered", "Calls failed in a row, and end well again; the message says with what.")
    ERRORS_IN_A_ROW = Reason("ErrorsInARow", "The last calls raised or returned something wrong; polls back off.")
    TIMED_OUT = Reason("TimedOut", "The last call passed spec.timeout and was killed; it has a worker of its own now.")
    CRASHED = Reason("Crashed", "The last call took its process down; it has a worker of its own now.")


class RunReason:
    """Reasons on a WorkflowRun."""

    WAITING_FOR_PACKAGE = Reason("WaitingForPackage", "The package or its archive is not there (yet).")
    WAITING_FOR_RUN = Reason(
        "WaitingForRun", "Another run of the trigger is active, and its policy lets no two overlap."
    )
    WAITING_FOR_SLOT = Reason("WaitingForSlot", "As many runs as the operator may start at once are running.")
    START_FAILED = Reason("StartFailed", "No process could be started; it is tried again with backoff.")
    STARTED = Reason("Started", "A process was started for it.")
    RETRYING = Reason("Retrying", "The process died; the next attempt resumes at the frontier.")
    WORKFLOW_UNKNOWN = Reason("WorkflowUnknown", "The archive has no workflow of that name.")
    RUNNING = Reason("Running", "Its tasks are running or about to.")
    COMPLETED = Reason("Completed", "Every task completed.")
    TASK_FAILED = Reason("TaskFailed", "A task failed for good; status.message names it.")
    BACKOFF_LIMIT_EXCEEDED = Reason("BackoffLimitExceeded", "Its process died more often than spec.backoffLimit.")
    DEADLINE_EXCEEDED = Reason("DeadlineExceeded", "It ran longer than spec.activeDeadlineSeconds.")
    CANCELLED = Reason("Cancelled", "spec.cancel was set.")
    DEDUPLICATED = Reason("Deduplicated", "Its key had fired before; it was never started.")
    CONTEXT_TOO_LARGE = Reason("ContextTooLarge", "spec.context is over 256 KiB as JSON; never started.")
    DIGEST_UNKNOWN = Reason("DigestUnknown", "spec.digest names an archive that its package has not accepted.")
    TRIGGER_FOREIGN = Reason("TriggerForeign", "spec.triggerRef names a trigger of another package; never started.")


_P, _T, _R = PackageReason, TriggerReason, RunReason

POD_TROUBLE = tuple(value for value in vars(PodReason).values() if isinstance(value, Reason))
"""Every reason that trouble with pods may give."""
OF_PODS = tuple(reason for reason in POD_TROUBLE if reason not in (PodReason.POLLER_FAILED, _R.DEADLINE_EXCEEDED))

READY_OF_PACKAGE = (
    _P.READY, _P.CANDIDATE_REFUSED, _P.PROGRESSING, _P.SUSPENDED, _P.FETCH_FAILED, _P.SOURCE_UNAVAILABLE,
    _P.SOURCE_UNSUPPORTED, _P.DIGEST_MISMATCH, _P.SIGNATURES_UNSUPPORTED, _P.ARCHIVE_INVALID,
    _P.MANIFEST_INVALID, _P.NAMES_DISAGREE, _P.PACKAGE_NAME_TAKEN, _P.TRIGGER_NAME_TAKEN, _P.PYTHON_UNSUPPORTED,
    _P.IMPORT_FAILED, _P.IMPORT_TIMED_OUT, _P.IMPORT_CRASHED, _P.POLLER_FAILED, *OF_PODS,
)  # fmt: skip

RECONCILING = "Reconciling"
"""Abnormal-true, on a package: the operator works towards the spec. Absent otherwise (kstatus: in progress). Triggers
and runs that are on their way have Ready False without Stalled, which kstatus reads alike."""
STALLED = "Stalled"
"""Abnormal-true, on every kind: nothing more will happen until the spec changes. Absent otherwise (kstatus: failed)."""


def _reconciling(*reasons: Reason) -> ConditionType:
    meaning = "The operator works towards what the spec asks for; absent when it does not."
    return ConditionType(RECONCILING, meaning, reasons, ConditionStatus.FALSE)


def _stalled(*reasons: Reason) -> ConditionType:
    meaning = "Nothing more will happen until the spec (or what it names) changes; absent otherwise."
    return ConditionType(STALLED, meaning, reasons, ConditionStatus.FALSE)


class PackageCondition:
    """Condition types of a CloacinaPackage, in the order in which they come true."""

    FETCHED = ConditionType(
        "Fetched",
        "The archive of the spec was pulled.",
        (
            _P.FETCHED,
            _P.FETCHING,
            _P.FETCH_FAILED,
            _P.SOURCE_UNAVAILABLE,
            _P.SOURCE_UNSUPPORTED,
            _P.SUSPENDED,
            *OF_PODS,
        ),
    )
    VERIFIED = ConditionType(
        "Verified",
        "Its digest is the one that spec.digest pins; absent where the spec asks for no check.",
        (_P.VERIFIED, _P.DIGEST_MISMATCH, _P.SIGNATURES_UNSUPPORTED),
    )
    AGREED = ConditionType(
        "Agreed",
        "Archive, manifest and code are valid and name the same things.",
        (_P.AGREED, _P.INSPECTING, _P.ARCHIVE_INVALID, _P.MANIFEST_INVALID, _P.NAMES_DISAGREE, _P.PACKAGE_NAME_TAKEN,
         _P.PYTHON_UNSUPPORTED, _P.IMPORT_FAILED, _P.IMPORT_TIMED_OUT, _P.IMPORT_CRASHED, *OF_PODS),
    )  # fmt: skip
    POLLING = ConditionType(
        "Polling",
        "A poller calls the triggers of the active archive.",
        (_P.POLLING, _P.POLLER_STARTING, _P.NO_TRIGGERS, _P.SUSPENDED, _P.NOTHING_ACTIVE, _P.POLLER_FAILED, *OF_PODS),
    )
    READY = ConditionType("Ready", "The sum: an archive is active and works.", READY_OF_PACKAGE)
    SUSPENDED = ConditionType(
        "Suspended",
        "A person asked that nothing is pulled and nothing is polled; absent otherwise.",
        (_P.SUSPENDED,),
        ConditionStatus.FALSE,
    )
    RECONCILING = _reconciling(
        _P.FETCHING, _P.FETCH_FAILED, _P.INSPECTING, _P.POLLER_STARTING, _P.PROGRESSING, *OF_PODS
    )
    STALLED = _stalled(
        _P.SOURCE_UNSUPPORTED, _P.DIGEST_MISMATCH, _P.SIGNATURES_UNSUPPORTED, _P.ARCHIVE_INVALID,
        _P.MANIFEST_INVALID, _P.NAMES_DISAGREE, _P.PACKAGE_NAME_TAKEN, _P.TRIGGER_NAME_TAKEN, _P.PYTHON_UNSUPPORTED,
        _P.IMPORT_FAILED, _P.IMPORT_TIMED_OUT, _P.IMPORT_CRASHED,
    )  # fmt: skip


class TriggerCondition:
    """Condition types of a Trigger."""

    READY = ConditionType(
        "Ready",
        "Package, function, workflow and settings fit together.",
        (_T.READY, _T.PROGRESSING, _T.PACKAGE_NOT_FOUND, _T.PACKAGE_NOT_READY, _T.TRIGGER_NOT_DECLARED,
         _T.WORKFLOW_UNKNOWN, _T.INTERVAL_INVALID, _T.INTERVAL_TOO_SHORT, _T.SCHEDULE_INVALID, _T.TIME_ZONE_UNKNOWN,
         _T.DUPLICATE),
    )  # fmt: skip
    POLLING = ConditionType(
        "Polling",
        "The function is called at its interval (or fires by its schedule).",
        (_T.POLLING, _T.SCHEDULED, _T.WAITING_FOR_RUN, _T.SUSPENDED, _T.PACKAGE_SUSPENDED, _T.NOT_READY,
         _T.POLLER_FAILED),
    )  # fmt: skip
    DEGRADED = ConditionType(
        "Degraded",
        "The function itself fails; status.lastError says how.",
        (_T.HEALTHY, _T.RECOVERED, _T.ERRORS_IN_A_ROW, _T.TIMED_OUT, _T.CRASHED),
        ConditionStatus.FALSE,
    )
    STALLED = _stalled(
        _T.TRIGGER_NOT_DECLARED, _T.WORKFLOW_UNKNOWN, _T.INTERVAL_INVALID, _T.INTERVAL_TOO_SHORT, _T.SCHEDULE_INVALID,
        _T.TIME_ZONE_UNKNOWN, _T.DUPLICATE,
    )  # fmt: skip


class RunCondition:
    """Condition types of a WorkflowRun; ``status.phase`` is the short form."""

    STARTED = ConditionType(
        "Started",
        "A process was started for the run; False says what it waits for.",
        (
            _R.STARTED,
            _R.RETRYING,
            _R.WAITING_FOR_PACKAGE,
            _R.WAITING_FOR_RUN,
            _R.WAITING_FOR_SLOT,
            _R.START_FAILED,
            *OF_PODS,
        ),
    )
    READY = ConditionType(
        "Ready",
        "The run completed; False once it ended otherwise, and until it ends.",
        (_R.COMPLETED, _R.RUNNING, _R.RETRYING,
         _R.WAITING_FOR_PACKAGE, _R.WAITING_FOR_RUN, _R.WAITING_FOR_SLOT, _R.START_FAILED,
         _R.TASK_FAILED, _R.WORKFLOW_UNKNOWN, _R.BACKOFF_LIMIT_EXCEEDED, _R.DEADLINE_EXCEEDED, _R.CANCELLED,
         _R.DEDUPLICATED, _R.TRIGGER_FOREIGN, _R.DIGEST_UNKNOWN, _R.CONTEXT_TOO_LARGE, *OF_PODS),
    )  # fmt: skip
    STALLED = _stalled(
        _R.TASK_FAILED, _R.WORKFLOW_UNKNOWN, _R.BACKOFF_LIMIT_EXCEEDED, _R.DEADLINE_EXCEEDED, _R.CANCELLED,
        _R.DEDUPLICATED, _R.TRIGGER_FOREIGN, _R.DIGEST_UNKNOWN, _R.CONTEXT_TOO_LARGE, *OF_PODS,
    )  # fmt: skip


CONDITIONS: Mapping[str, tuple[ConditionType, ...]] = MappingProxyType(
    {
        kind: tuple(value for value in vars(namespace).values() if isinstance(value, ConditionType))
        for kind, namespace in (
            ("CloacinaPackage", PackageCondition),
            ("Trigger", TriggerCondition),
            ("WorkflowRun", RunCondition),
        )
    }
)
"""Kind → its condition types, in order."""


def find(conditions: Iterable[C], type: str) -> C | None:  # noqa: A002 - the API's own word
    """The condition of that type, or None."""
    return next((condition for condition in conditions if condition.type == type), None)


def is_true(conditions: Iterable[Condition], type: str) -> bool:  # noqa: A002 - the API's own word
    """Whether the condition is there and True."""
    found = find(conditions, type)
    return found is not None and found.status is ConditionStatus.TRUE


def set_condition(
    conditions: tuple[Condition, ...],
    type: str,  # noqa: A002 - the API's own word
    status: ConditionStatus | bool | None,
    reason: str,
    message: str,
    now: datetime,
    generation: int,
) -> tuple[Condition, ...]:
    """``conditions`` with this one in place; as ``placed``."""
    from cloaca.resources.meta import Condition  # the process of a run has a lighter one, and must not load pydantic

    return placed(conditions, Condition, type, status, reason, message, now, generation)


def placed(
    conditions: tuple[C, ...],
    kind: Callable[..., C],
    type: str,  # noqa: A002 - the API's own word
    status: ConditionStatus | bool | None,
    reason: str,
    message: str,
    now: datetime,
    generation: int,
) -> tuple[C, ...]:
    """``conditions`` with this one, made by ``kind``, in place; the very same tuple where nothing changes, so that no
    write is needed.

    ``lastTransitionTime`` moves only when the status does. For ``status``, None is Unknown. A long message loses its
    middle: the head says what happened, the tail is where a traceback names the error.
    """
    if not isinstance(status, ConditionStatus):
        status = {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE, None: ConditionStatus.UNKNOWN}[status]
    before = find(conditions, type)
    after = kind(
        type=str(type),
        status=status,
        reason=str(reason),
        message=bounded(message),
        last_transition_time=before.last_transition_time if before and before.status is status else now,
        observed_generation=generation,
    )
    if before is None:
        return conditions + (after,)  # noqa: RUF005  # mypy knows no type of the other form
    if before == after:
        return conditions
    return tuple(after if condition is before else condition for condition in conditions)


def without_condition(
    conditions: tuple[Condition, ...],
    type: str,  # noqa: A002 - the API's own word
) -> tuple[Condition, ...]:
    """``conditions`` less that one: how Reconciling and Stalled end. The very same tuple where it is not there."""
    return tuple(c for c in conditions if c.type != type) if find(conditions, type) else conditions


def bounded(message: str, limit: int = MESSAGE_LIMIT) -> str:
    """``message``, or its head and tail with a note between them where it is over ``limit`` bytes of UTF-8."""
    data = message.encode(errors="replace")
    if len(data) <= limit:
        return data.decode()
    note = f"\n… {len(data) - limit} bytes and more left out …\n".encode()
    half = (limit - len(note)) // 2
    return (data[:half] + note + data[-half:]).decode(errors="ignore")
