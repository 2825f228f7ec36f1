"""Decide about one WorkflowRun. Pure: no I/O, no clock, no logging."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from cloaca.authoring.context import CONTEXT_LIMIT
from cloaca.resources import ConcurrencyPolicy, RunPhase, RunStatus, TaskPhase, Trigger, WorkflowRun
from cloaca.resources.conditions import RunCondition, RunReason, find, set_condition
from cloacina_operator.core.history import FinishedRun
from cloacina_operator.core.plan import Action, CancelRun, CollectRuns, Plan, StartRun, StopRun
from cloacina_operator.core.spans import lasting

RunPlan = Plan[RunStatus]

FIRST_BACKOFF = timedelta(seconds=1)
LONGEST_BACKOFF = timedelta(minutes=5)
LOOK_AGAIN = timedelta(seconds=30)  # at what hinders a run: it may have gone without telling
DEADLINE_GRACE = timedelta(seconds=10)  # the run's own process keeps the deadline; we step in after this


@dataclass(frozen=True, kw_only=True)
class Execution:
    """The process of one attempt."""

    attempt: int
    ended_at: datetime | None = None  # None: it is alive
    how: str = ""  # it ended, or what keeps it from starting, in words
    reason: str = ""  # of a condition, for the same; empty: nothing special
    interrupted: bool = False  # it was asked to stop so that another one resumes; no failure


@dataclass(frozen=True, kw_only=True)
class Sibling:
    """Another unfinished run of the same trigger."""

    name: str
    created: datetime
    started: bool


@dataclass(frozen=True, kw_only=True)
class ObservedRun:
    """Everything that the decision may see."""

    run: WorkflowRun
    digest: str | None  # of the archive to run; None: none is there (yet)
    missing: str = ""  # what is not there, where digest is None
    unaccepted: str = ""  # why the digest that the run pins is refused; empty: it is not
    owner: str | None = None  # the other package whose trigger spec.triggerRef names; None: all is well
    context_bytes: int = 0  # of spec.context, as JSON
    fired_before: bool = False  # its key stands in the ledger of its trigger
    keeper: bool = False  # the trigger that fired it exists, and decides what becomes of it once it has ended
    policy: ConcurrencyPolicy | None = None  # None: no trigger fired it
    siblings: tuple[Sibling, ...] = ()
    begun: bool = False  # a start of it was tried: its turn has come
    execution: Execution | None = None  # None: no process that we know of
    no_slot: str = ""  # the limit that keeps it from starting, in words; empty: none does
    now: datetime


Rule = Callable[[ObservedRun], "RunPlan | None"]


def policy_of(run: WorkflowRun, trigger: Trigger | None) -> ConcurrencyPolicy | None:
    """What holds between ``run`` and others that the same trigger fired; None: no trigger fired it.

    ``trigger``: that of the name which the run says, as it was seen; None: it is gone, or was not seen yet. While a
    trigger has no effective settings nobody knows what its package would have: then its runs do not overlap.
    """
    by = run.spec.trigger_ref
    if by is None:
        return None
    if trigger is None or trigger.metadata.uid != by.uid:
        return ConcurrencyPolicy.FORBID
    if trigger.status.effective is not None:
        return trigger.status.effective.concurrency_policy
    if trigger.spec.concurrency_policy is not None:
        return trigger.spec.concurrency_policy
    return ConcurrencyPolicy.ALLOW if trigger.spec.allow_concurrent else ConcurrencyPolicy.FORBID


def plan(observed: ObservedRun) -> RunPlan:
    """The first rule that has an answer gives it."""
    return next(answer for rule in RULES if (answer := rule(observed)) is not None)


def finished(observed: ObservedRun) -> RunPlan | None:
    """A terminal phase is never overwritten; a run that no trigger keeps goes when its time is over."""
    status, spec = observed.run.status, observed.run.spec
    if not status.phase.finished:
        return None
    status = status.model_copy(update={"observed_generation": observed.run.metadata.generation})
    if observed.keeper or spec.ttl_seconds_after_finished is None:
        return Plan(status=status)
    run = ended(observed.run)
    left = run.finished_at + lasting(spec.ttl_seconds_after_finished) - observed.now
    if left > timedelta(0):
        return Plan(status=status, requeue_after=left)
    return Plan(status=status, actions=(CollectRuns(runs=(run,), trigger=None),))


def ended(run: WorkflowRun) -> FinishedRun:
    """A run that has ended, as its collection sees it."""
    seconds = run.spec.ttl_seconds_after_finished
    created = run.metadata.creation_timestamp or datetime.min.replace(tzinfo=timezone.utc)
    return FinishedRun(
        name=run.name,
        uid=run.metadata.uid,
        phase=run.status.phase,
        finished_at=run.status.finished_at or created,
        ttl=None if seconds is None else lasting(seconds),
        key=run.spec.key,
        fire_id=run.spec.fire_id,
        package=None if run.spec.package_ref is None else run.spec.package_ref.name,
    )


def foreign(observed: ObservedRun) -> RunPlan | None:
    """It says that a trigger of another package fired it: its own package's poller cannot have been asked to."""
    by, package = observed.run.spec.trigger_ref, observed.run.spec.package_ref
    if observed.owner is None or by is None or observed.run.status.attempt or observed.execution is not None:
        return None
    own = "no package" if package is None else f"package {package.name!r}"
    said = f"trigger {by.name!r} is of package {observed.owner!r}, the run of {own}: name a trigger of its own, or none"
    return _closed(observed, observed.run.status, RunPhase.FAILED, RunReason.TRIGGER_FOREIGN, said)


def digest_unknown(observed: ObservedRun) -> RunPlan | None:
    """It pins an archive that its package never accepted: the code of that archive must not get the package's pod."""
    if not observed.unaccepted or _alive(observed):
        return None
    return _closed(observed, observed.run.status, RunPhase.FAILED, RunReason.DIGEST_UNKNOWN, observed.unaccepted)


def context_too_large(observed: ObservedRun) -> RunPlan | None:
    """Its context is over the limit that every context has: a person, or another program, submitted it."""
    if observed.context_bytes <= CONTEXT_LIMIT or _alive(observed):
        return None
    said = (
        f"spec.context is {observed.context_bytes:,} bytes as JSON, over the limit of {CONTEXT_LIMIT:,}: "
        "submit a run whose context has a reference to the data instead"
    )
    return _closed(observed, observed.run.status, RunPhase.FAILED, RunReason.CONTEXT_TOO_LARGE, said)


def deduplicated(observed: ObservedRun) -> RunPlan | None:
    """Its key had fired before, and the run of that is gone: whoever submitted it could not see that."""
    if not observed.fired_before or observed.run.status.attempt or observed.execution is not None:
        return None
    said = f"key {observed.run.spec.key!r} had fired before: it stands in the ledger of the trigger"
    return _closed(observed, observed.run.status, RunPhase.DEDUPLICATED, RunReason.DEDUPLICATED, said)


def process_died(observed: ObservedRun) -> RunPlan | None:
    """Its process ended without a word: count that, and close the run where it was the last attempt."""
    execution, status = observed.execution, observed.run.status
    if execution is None or execution.ended_at is None or execution.attempt < status.attempt:
        return None
    if status.attempt == execution.attempt and status.phase is RunPhase.PENDING:
        return _told_why(observed, execution)
    failures = status.failures + (0 if execution.interrupted else 1)
    message = _end_of(execution)
    died = status.model_copy(update={"attempt": execution.attempt, "failures": failures, "message": message})
    if observed.run.spec.cancel:
        return _closed(observed, died, RunPhase.CANCELLED, RunReason.CANCELLED, "cancelled")
    if failures > observed.run.spec.backoff_limit:
        said = f"{message}; it was tried {execution.attempt} times (backoffLimit {observed.run.spec.backoff_limit})"
        reason = execution.reason or RunReason.BACKOFF_LIMIT_EXCEEDED
        return _closed(observed, died, RunPhase.FAILED, reason, said)
    reason = execution.reason or RunReason.RETRYING
    return Plan(
        status=_conditions(observed, _unstarted(died), started=False, reason=reason, message=message),
        requeue_after=timedelta(0),
    )


def _told_why(observed: ObservedRun, execution: Execution) -> RunPlan | None:
    """Its end is recorded. Where its process did that when it was asked to stop, it could not know what for."""
    status = observed.run.status
    started = find(status.conditions, RunCondition.STARTED)
    if not execution.interrupted or not execution.reason or started is None or started.reason != RunReason.RETRYING:
        return None
    message = _end_of(execution)
    told = status.model_copy(update={"message": message})
    return Plan(
        status=_conditions(observed, told, started=False, reason=execution.reason, message=message),
        requeue_after=timedelta(0),
    )


def _end_of(execution: Execution) -> str:
    if execution.interrupted and execution.reason:
        return f"attempt {execution.attempt} was stopped: {execution.how}; that is no failure, the next one resumes"
    return f"the process of attempt {execution.attempt} ended with {execution.how}"


def cancelled(observed: ObservedRun) -> RunPlan | None:
    """A person cancelled it: stop its process, which says so itself; where there is none, say it."""
    if not observed.run.spec.cancel:
        return None
    if _alive(observed):
        return Plan(status=observed.run.status, actions=(StopRun(run=observed.run),))
    return _closed(observed, observed.run.status, RunPhase.CANCELLED, RunReason.CANCELLED, "cancelled")


def overdue(observed: ObservedRun) -> RunPlan | None:
    """It is over its deadline, and its process did not end it."""
    seconds, started = observed.run.spec.active_deadline_seconds, observed.run.status.started_at
    if seconds is None or started is None:
        return None
    deadline = started + lasting(seconds)
    if _alive(observed):
        if observed.now >= deadline + DEADLINE_GRACE:
            return Plan(status=observed.run.status, actions=(StopRun(run=observed.run),))
        return None
    if observed.now >= deadline:
        said = f"it took longer than its {seconds} s (activeDeadlineSeconds)"
        return _closed(observed, observed.run.status, RunPhase.FAILED, RunReason.DEADLINE_EXCEEDED, said)
    return None


def hindered(observed: ObservedRun) -> RunPlan | None:
    """Something keeps its process from starting. Once it has claimed its attempt, it writes the status itself."""
    execution = observed.execution
    if execution is None or execution.ended_at is not None or not execution.reason:
        return None
    if execution.attempt <= observed.run.status.attempt:
        return None
    waiting = _waiting(observed, execution.reason, execution.how)
    return Plan(status=waiting.status, requeue_after=LOOK_AGAIN)


def running(observed: ObservedRun) -> RunPlan | None:
    """Its process is alive and writes the status itself."""
    if not _alive(observed):
        return None
    seconds, started = observed.run.spec.active_deadline_seconds, observed.run.status.started_at
    if seconds is None or started is None:
        return Plan(status=observed.run.status)
    left = started + lasting(seconds) + DEADLINE_GRACE - observed.now
    return Plan(status=observed.run.status, requeue_after=left)


def waiting_for_package(observed: ObservedRun) -> RunPlan | None:
    """There is no archive to run."""
    if observed.digest is not None:
        return None
    return _waiting(observed, RunReason.WAITING_FOR_PACKAGE, observed.missing)


def waiting_for_run(observed: ObservedRun) -> RunPlan | None:
    """Another run of its trigger comes first, and the two may not overlap. It waits; it is never dropped."""
    if observed.policy not in (ConcurrencyPolicy.FORBID, ConcurrencyPolicy.REPLACE):
        return None
    if observed.run.status.attempt or observed.begun:
        return None
    first = [sibling for sibling in observed.siblings if sibling.started or _comes_before(sibling, observed.run)]
    if not first:
        return None
    names = ", ".join(sorted(sibling.name for sibling in first)[:3])
    actions: tuple[Action, ...] = ()
    if observed.policy is ConcurrencyPolicy.REPLACE:
        actions = tuple(CancelRun(name=sibling.name) for sibling in first)
    said = f"{observed.policy.value}: waits for the end of {names}"
    return _waiting(observed, RunReason.WAITING_FOR_RUN, said, actions)


def backing_off(observed: ObservedRun) -> RunPlan | None:
    """Its last process died a short while ago."""
    execution, failures = observed.execution, observed.run.status.failures
    if execution is None or execution.ended_at is None or execution.interrupted or not failures:
        return None
    pause = min(FIRST_BACKOFF * 2 ** min(failures - 1, 20), LONGEST_BACKOFF)
    since = observed.now - execution.ended_at
    if since >= pause or since < timedelta(0):  # the clock was set back: nobody knows how long it has been
        return None
    return Plan(status=observed.run.status, requeue_after=pause - since)


def waiting_for_slot(observed: ObservedRun) -> RunPlan | None:
    """A limit on how many runs may run at once keeps it from starting, or others that have waited longer."""
    if not observed.no_slot:
        return None
    return _waiting(observed, RunReason.WAITING_FOR_SLOT, observed.no_slot)


def startable(observed: ObservedRun) -> RunPlan | None:
    """Nothing is in the way."""
    status, digest = observed.run.status, observed.digest
    if digest is None:
        return None
    start = StartRun(run=observed.run, digest=digest, attempt=status.attempt + 1)
    return Plan(status=status, actions=(start,))


RULES: tuple[Rule, ...] = (
    finished,
    foreign,
    digest_unknown,
    context_too_large,
    deduplicated,
    process_died,
    cancelled,
    overdue,
    hindered,
    running,
    waiting_for_package,
    waiting_for_run,
    backing_off,
    waiting_for_slot,
    startable,
)


def _alive(observed: ObservedRun) -> bool:
    return observed.execution is not None and observed.execution.ended_at is None


def _comes_before(sibling: Sibling, run: WorkflowRun) -> bool:
    created = run.metadata.creation_timestamp
    return created is None or (sibling.created, sibling.name) < (created, run.name)


def _waiting(observed: ObservedRun, reason: str, message: str, actions: tuple[Action, ...] = ()) -> RunPlan:
    status = _unstarted(observed.run.status).model_copy(update={"message": message})
    return Plan(status=_conditions(observed, status, started=False, reason=reason, message=message), actions=actions)


def _unstarted(status: RunStatus) -> RunStatus:
    """``status`` of a run without a process: what was under way is to be started again."""
    tasks = tuple(
        task.model_copy(update={"phase": TaskPhase.PENDING}) if task.phase is TaskPhase.RUNNING else task
        for task in status.tasks
    )
    return status.model_copy(update={"phase": RunPhase.PENDING, "tasks": tasks})


def _closed(observed: ObservedRun, status: RunStatus, phase: RunPhase, reason: str, message: str) -> RunPlan:
    tasks = tuple(
        task
        if task.phase.finished
        else task.model_copy(update={"phase": TaskPhase.CANCELLED, "finished_at": observed.now})
        for task in status.tasks
    )
    changes: dict[str, Any] = {
        "phase": phase,
        "tasks": tasks,
        "checkpoint": {},
        "finished_at": observed.now,
        "message": message,
    }
    closed = status.model_copy(update=changes)
    return Plan(status=_conditions(observed, closed, started=None, reason=reason, message=message))


def _conditions(
    observed: ObservedRun, status: RunStatus, *, started: bool | None, reason: str, message: str
) -> RunStatus:
    """``status`` with what people and kstatus read; ``started`` None: the run has ended, and will not be ready."""
    conditions = status.conditions
    generation, now = observed.run.metadata.generation, observed.now

    def put(condition: str, value: bool) -> None:
        nonlocal conditions
        conditions = set_condition(conditions, condition, value, reason, message, now, generation)

    if started is not None:
        put(RunCondition.STARTED, started)
    put(RunCondition.READY, False)
    if started is None:
        put(RunCondition.STALLED, True)
    return status.model_copy(update={"conditions": conditions, "observed_generation": generation})
