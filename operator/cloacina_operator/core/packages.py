"""Decide about one CloacinaPackage. Pure: no I/O, no clock, no logging."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cloaca.packages.acceptance import Accepted
from cloaca.resources import CloacinaPackage, ObjectMeta, PackageStatus, Trigger, TriggerSpec, owned_by
from cloaca.resources.conditions import (
    PackageCondition,
    PackageReason,
    find,
    is_true,
    set_condition,
    without_condition,
)
from cloaca.resources.names import (
    FOLDER,
    FOLDER_LABEL,
    object_name,
    trigger_labels,
    trigger_object_name,
)
from cloaca.resources.package import (
    SIGNATURES_UNSUPPORTED,
    ActivePackage,
    CandidatePackage,
    HistoryEntry,
    TriggerCreation,
    TriggerEntry,
)
from cloaca.resources.phases import ConditionStatus
from cloaca.resources.spans import parse_span
from cloaca.resources.trigger import PackageReference
from cloacina_operator.core.manifests import ACCOUNT_FIELDS
from cloacina_operator.core.namesakes import is_second
from cloacina_operator.core.plan import Action, AwaitNews, CreateTrigger, EnsurePoller, Fetch, Inspect, Plan, StopPoller

PackagePlan = Plan[PackageStatus]

HISTORY_KEPT = 10
ACCEPTED_KEPT = 4
"""Accepted archives that the history keeps, however many were refused since, and whose bytes are kept: the active one,
and the three before it. A run that pins one can still start."""
LONGEST_RETRY = timedelta(minutes=10)
"""Between two tries to get an archive."""
ACCOUNT_IGNORED = "the service account in spec.podTemplate is ignored: set spec.serviceAccounts.poller and .run instead"
_IMPORTING = "importing the code to compare names"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The source gave these bytes, and they are kept for the package."""

    digest: str


@dataclass(frozen=True, kw_only=True)
class FetchFailed:
    """The source gave nothing usable."""

    reason: str
    message: str
    retry_at: datetime | None  # None: not before the spec changes


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What an archive was refused for: a reason of the Agreed condition, and all faults in words."""

    reason: str
    message: str
    version: str | None  # None: not even that could be read


@dataclass(frozen=True, kw_only=True)
class Unread:
    """Nobody looked at the archive yet. ``version`` is what its manifest says, once that was read."""

    version: str | None = None
    inspecting: bool = False


@dataclass(frozen=True, kw_only=True)
class Hindrance:
    """What keeps the process of an inspection from starting: the reason of a condition, and words for a person."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PollerState:
    """The package's poller."""

    digest: str
    failure: str | None = None  # None: it polls, or is about to
    reason: str = PackageReason.POLLER_FAILED  # of a condition, where there is a failure
    starting: bool = False  # it is not there yet, and nothing is wrong so far


@dataclass(frozen=True, kw_only=True)
class TakenName:
    """A Trigger object that has the name of one that this package needs, and is not for the same function."""

    object: str
    package: str  # that the object is of
    function: str  # that the object is for


@dataclass(frozen=True, kw_only=True)
class ObservedPackage:
    """Everything that the decision may see."""

    package: CloacinaPackage
    fetch: Fetched | FetchFailed | None  # of what the spec asks for now; None: not tried yet
    verdict: Accepted | Refused | Unread | None  # on what was fetched; None: nothing was
    polled: frozenset[str]  # trigger names (as in decorators) of this package that have a Trigger object
    poller: PollerState | None  # None: there is none
    namesake: str | None = None  # the package that has the object name of this archive's; None: not looked for
    taken: tuple[TakenName, ...] = ()  # Trigger objects that this package needs and another one has
    inspection: Hindrance | None = None  # None: nothing keeps an inspection that is under way from its end
    source_trouble: str | None = None  # why the file that declares it, or its folder, cannot be used; None: it can
    now: datetime


def plan(observed: ObservedPackage) -> PackagePlan:
    """Fetch, verify, agree, accept, then poll. A bad archive never takes down the one that is active."""
    steps = _Steps(observed)
    steps.forget_other_verification()
    if observed.package.spec.suspend:
        steps.suspended()
    else:
        steps.awake()
        steps.source()
        steps.polling()
    return steps.plan()


class _Steps:
    """Collects what one plan says: conditions in order, the fields of the status, actions."""

    def __init__(self, observed: ObservedPackage) -> None:
        self._observed = observed
        self._status = observed.package.status
        self._conditions = observed.package.status.conditions
        self._changes: dict[str, Any] = {}
        self._actions: list[Action] = []
        self._requeue: timedelta | None = None
        self._unavailable = False  # the file that declares the package, or its folder, is

    def plan(self) -> PackagePlan:
        changes = {
            **self._changes,
            "conditions": self._conditions,
            "warnings": self._warnings,
            "observed_generation": self._observed.package.metadata.generation,
        }
        if self._observed.fetch is not None:
            changes["last_handled_reconcile_at"] = self._observed.package.reconcile_requested_at
        status = self._status.model_copy(update=changes)
        return Plan(status=status, actions=tuple(self._actions), requeue_after=self._requeue)

    # --- the archive

    def forget_other_verification(self) -> None:
        """Verified is about what the spec asks for now: absent where it asks for nothing, or for another digest."""
        pinned = self._observed.package.spec.digest
        before = find(self._conditions, PackageCondition.VERIFIED)
        stale = before is not None and before.status is ConditionStatus.TRUE and before.message != f"digest {pinned}"
        if pinned is None or stale:
            self._conditions = without_condition(self._conditions, PackageCondition.VERIFIED)

    def suspended(self) -> None:
        """Ready keeps its status: what waits for a package that a person has put to rest must not wait for ever."""
        said = "suspended: set spec.suspend to false to go on"
        self._set(PackageCondition.SUSPENDED, True, PackageReason.SUSPENDED, said)
        self._set(PackageCondition.POLLING, False, PackageReason.SUSPENDED, said)
        self._conditions = without_condition(self._conditions, PackageCondition.RECONCILING)
        if is_true(self._conditions, PackageCondition.READY):
            self._set(PackageCondition.READY, True, PackageReason.SUSPENDED, said)
        elif self._active is None:
            self._conditions = without_condition(self._conditions, PackageCondition.READY)
            self._conditions = without_condition(self._conditions, PackageCondition.STALLED)
        if self._observed.poller is not None:
            self._actions.append(StopPoller())

    def awake(self) -> None:
        """A person did not put it to rest, or not any more."""
        self._conditions = without_condition(self._conditions, PackageCondition.SUSPENDED)

    def source(self) -> None:
        """From the source to an accepted archive, as far as it has come."""
        verify = self._observed.package.spec.verify
        if verify is not None and verify.public_keys:
            self._signatures_unsupported()
            return
        fetch = self._observed.fetch
        trouble = self._observed.source_trouble
        active = None if self._active is None else self._active.digest
        if trouble is not None and active is not None and active == self._observed.package.spec.digest:
            self._source_unavailable(trouble)
        elif fetch is None:
            hindrance = self._observed.inspection or Hindrance(
                reason=PackageReason.FETCHING, message="getting the archive"
            )
            if self._active is None:
                self._set(PackageCondition.FETCHED, None, hindrance.reason, hindrance.message)
            self._progress(hindrance.reason, hindrance.message)
            if self._observed.inspection is not None and self._active is None:
                self._set(PackageCondition.READY, False, hindrance.reason, hindrance.message)
            self._actions.append(Fetch())
        elif isinstance(fetch, FetchFailed):
            self._fetch_failed(fetch)
        else:
            self._set(PackageCondition.FETCHED, True, PackageReason.FETCHED, fetched_message(fetch.digest))
            self._verify(fetch.digest)

    def _source_unavailable(self, trouble: str) -> None:
        """The archive that the spec pins is active and in the store, so nothing is fetched while its file is away."""
        self._unavailable = True
        self._set(PackageCondition.FETCHED, False, PackageReason.SOURCE_UNAVAILABLE, trouble)
        self._settle()
        going = "" if self._active is None else f"; version {self._active.version} goes on working"
        self._ready(False, PackageReason.SOURCE_UNAVAILABLE, f"{trouble}{going}", stalled=False)

    def _fetch_failed(self, failed: FetchFailed) -> None:
        if failed.reason == PackageReason.DIGEST_MISMATCH:
            self._set(PackageCondition.VERIFIED, False, failed.reason, failed.message)
            self._refuse(Refused(reason=failed.reason, message=failed.message, version=None), None, stalled=True)
        else:
            self._source_away(failed)
        if failed.retry_at is not None:
            left = failed.retry_at - self._observed.now
            if left <= timedelta(0) or left > LONGEST_RETRY:  # the clock was set back: nobody waits as long as that
                self._actions.append(Fetch())  # its end has us look again; to ask for that now would be a busy loop
            else:
                self._again(left)

    def _source_away(self, failed: FetchFailed) -> None:
        """There is nothing new to look at: an archive that is active goes on, and the package stays what it was."""
        self._set(PackageCondition.FETCHED, False, failed.reason, failed.message)
        stalled = failed.retry_at is None
        if self._active is None:
            self._ready(False, failed.reason, failed.message, stalled)
            return
        candidate = self._status.candidate
        if candidate is not None and candidate.digest is None:
            self._changes["candidate"] = None
        self._conditions = without_condition(self._conditions, PackageCondition.RECONCILING)
        self._conditions = without_condition(self._conditions, PackageCondition.STALLED)
        if stalled:
            self._set(PackageCondition.STALLED, True, failed.reason, failed.message)
        elif not self._reached:
            self._set(PackageCondition.RECONCILING, True, failed.reason, failed.message)

    def _signatures_unsupported(self) -> None:
        """The API server refuses such a spec, but some were stored before it did, and a daemon has no such server."""
        reason = PackageReason.SIGNATURES_UNSUPPORTED
        self._set(PackageCondition.VERIFIED, False, reason, SIGNATURES_UNSUPPORTED)
        self._refuse(Refused(reason=reason, message=SIGNATURES_UNSUPPORTED, version=None), None, stalled=True)

    def _verify(self, digest: str) -> None:
        pinned = self._observed.package.spec.digest
        if pinned is not None:
            self._set(PackageCondition.VERIFIED, True, PackageReason.VERIFIED, f"digest {pinned}")
        self._repull()
        if self._active is not None and self._active.digest == digest:
            self._settle()
            self._await_news()
        else:
            self._consider(digest)

    def _consider(self, digest: str) -> None:
        """Decide about an archive that is not the active one."""
        verdict = self._observed.verdict
        if isinstance(verdict, Accepted):
            namesake = self._namesake(verdict)
            if namesake is None:
                self._accept(digest, verdict)
            else:
                self._set(PackageCondition.AGREED, False, namesake.reason, namesake.message)
                self._refuse(namesake, digest, stalled=True)
        elif isinstance(verdict, Refused):
            self._set(PackageCondition.AGREED, False, verdict.reason, verdict.message)
            self._refuse(verdict, digest, stalled=True)
            self._await_news()
        else:
            version = None if verdict is None else verdict.version
            self._candidate(digest, version)
            hindrance = self._observed.inspection or Hindrance(reason=PackageReason.INSPECTING, message=_IMPORTING)
            if self._active is None:
                self._set(PackageCondition.AGREED, None, hindrance.reason, hindrance.message)
            self._progress(hindrance.reason, hindrance.message)
            if self._observed.inspection is not None and self._active is None:
                self._set(PackageCondition.READY, False, hindrance.reason, hindrance.message)
            self._actions.append(Inspect(digest=digest))

    def _namesake(self, accepted: Accepted) -> Refused | None:
        """What the archive is refused for if the object's name is another package's; None: it is not."""
        package, name = self._observed.package, accepted.name
        active = None if self._active is None else self._active.name
        if name is None:
            return None
        if is_second(package, name):
            other, what = self._observed.namesake or object_name(name), "another archive of the folder"
            next_step = "rename one of the two packages, or remove one of the two archives"
        elif active not in (None, name) and object_name(active or "") == object_name(name) and not _of_folder(package):
            other, what = active or "", "this object"
            next_step = "rename one of the two packages, or delete this object first"
        else:
            return None
        message = (
            f"the archive is of package {name!r}, but {what} is of package {other!r}, and both names give the object "
            f"name {object_name(name)!r}: {next_step}"
        )
        return Refused(reason=PackageReason.PACKAGE_NAME_TAKEN, message=message, version=accepted.version)

    def _accept(self, digest: str, accepted: Accepted) -> None:
        now = self._observed.now
        self._changes |= {
            "active": ActivePackage(digest=digest, name=accepted.name, version=accepted.version, since=now),
            "workflows": accepted.workflows,
            "tasks": accepted.tasks,
            "triggers": accepted.triggers,
            "trigger_count": len(accepted.triggers),
            "warnings": accepted.warnings,
        }
        self._remember(HistoryEntry(digest=digest, version=accepted.version, time=now, accepted=True))
        self._settle()

    def _settle(self) -> None:
        self._changes["candidate"] = None
        self._set(PackageCondition.AGREED, True, PackageReason.AGREED, "; ".join(self._warnings))

    def _refuse(self, refused: Refused, digest: str | None, stalled: bool) -> None:
        """Say what is wrong with the candidate; the active archive stays."""
        self._candidate(digest, refused.version)
        last = self._status.history[0] if self._status.history else None
        if last is None or last.accepted or last.digest != digest or last.message != refused.message:
            self._remember(
                HistoryEntry(
                    digest=digest,
                    version=refused.version,
                    time=self._observed.now,
                    accepted=False,
                    message=refused.message,
                )
            )
        if self._active is None:
            self._ready(False, refused.reason, refused.message, stalled)
        else:
            what = "the new archive" if refused.version is None else f"version {refused.version}"
            said = f"{what} was refused, version {self._active.version} goes on working: {refused.message}"
            self._ready(False, PackageReason.CANDIDATE_REFUSED, said, stalled, stall_reason=refused.reason)

    # --- polling

    def polling(self) -> None:
        """Have what the active archive declares polled."""
        active = self._changes.get("active", self._active)
        if active is None:
            self._set(PackageCondition.POLLING, False, PackageReason.NOTHING_ACTIVE, "no archive was accepted yet")
            return
        entries: tuple[TriggerEntry, ...] = self._changes.get("triggers", self._status.triggers)
        if self._observed.package.spec.triggers is TriggerCreation.AUTO:
            self._actions.extend(
                CreateTrigger(trigger=self._trigger(entry))
                for entry in entries
                if entry.name not in self._observed.polled and self._taken_by(entry.name) is None
            )
        poller = self._observed.poller
        if not entries:
            self._set(PackageCondition.POLLING, False, PackageReason.NO_TRIGGERS, "the manifest declares no trigger")
            if poller is not None:
                self._actions.append(StopPoller())
            self._settled_ready()
            return
        self._actions.append(EnsurePoller(digest=active.digest))
        if poller is None or (poller.failure is None and (poller.starting or poller.digest != active.digest)):
            self._set(PackageCondition.POLLING, False, PackageReason.POLLER_STARTING, "the poller is being started")
            self._progress(PackageReason.POLLER_STARTING, "the poller is being started")
        elif poller.failure is not None:
            self._set(PackageCondition.POLLING, False, poller.reason, poller.failure)
            self._ready(False, poller.reason, poller.failure, stalled=False)
        else:
            count = f"{len(entries)} trigger{'' if len(entries) == 1 else 's'} of version {active.version}"
            self._set(PackageCondition.POLLING, True, PackageReason.POLLING, count)
            self._settled_ready()

    def _settled_ready(self) -> None:
        """Ready, where nothing said otherwise."""
        if self._unavailable or self._changes.get("candidate", self._status.candidate) is not None:
            return
        active = self._changes.get("active", self._active)
        said = "" if active is None else f"version {active.version} is active"
        if isinstance(self._observed.fetch, Fetched):
            if self._name_is_taken():
                return
            self._ready(True, PackageReason.READY, said, stalled=False)
        elif isinstance(self._observed.fetch, FetchFailed) and self._reached:  # Fetched tells that the source is away
            self._set(PackageCondition.READY, True, PackageReason.READY, said)

    def _taken_by(self, function: str) -> TakenName | None:
        """The foreign Trigger object that has the name of the one for ``function``; None: there is none."""
        name = trigger_object_name(self._observed.package.name, function)
        return next((taken for taken in self._observed.taken if taken.object == name), None)

    def _name_is_taken(self) -> bool:
        """Say which triggers are not polled because their objects cannot be made; False: there are none."""
        package = self._observed.package
        if package.spec.triggers is not TriggerCreation.AUTO:
            return False
        entries: tuple[TriggerEntry, ...] = self._changes.get("triggers", self._status.triggers)
        found = [(entry.name, self._taken_by(entry.name)) for entry in entries]
        said = [
            f"trigger {name!r} of package {package.name!r} is not polled: its Trigger object would be "
            f"{taken.object!r}, which is trigger {taken.function!r} of package {taken.package!r}: "
            "rename one of the two triggers or packages, or apply a Trigger of another name for it"
            for name, taken in found
            if taken is not None and name not in self._observed.polled
        ]
        if said:
            self._ready(False, PackageReason.TRIGGER_NAME_TAKEN, "\n".join(said), stalled=True)
        return bool(said)

    def _trigger(self, entry: TriggerEntry) -> Trigger:
        package = self._observed.package
        return Trigger(
            metadata=ObjectMeta(
                name=trigger_object_name(package.name, entry.name),
                namespace=package.metadata.namespace,
                labels=trigger_labels(package.name),
                owner_references=(owned_by(package),),
            ),
            spec=TriggerSpec(package_ref=PackageReference(name=package.name), name=entry.name),
        )

    # --- pieces

    @property
    def _reached(self) -> bool:
        """Whether the spec as it is was once carried out: Ready tells of an older one until then."""
        ready = find(self._conditions, PackageCondition.READY)
        return ready is not None and ready.observed_generation == self._observed.package.metadata.generation

    @property
    def _warnings(self) -> tuple[str, ...]:
        """Of the active archive, and of the spec as it is now."""
        known: tuple[str, ...] = self._changes.get("warnings", self._status.warnings)
        spec = (self._observed.package.spec.pod_template or {}).get("spec")
        ignored = isinstance(spec, dict) and any(field in spec for field in ACCOUNT_FIELDS)
        return (*(one for one in known if one != ACCOUNT_IGNORED), *((ACCOUNT_IGNORED,) if ignored else ()))

    @property
    def _active(self) -> ActivePackage | None:
        return self._status.active

    def _set(self, condition: str, status: bool | None, reason: str, message: str) -> None:
        generation = self._observed.package.metadata.generation
        self._conditions = set_condition(
            self._conditions, condition, status, reason, message, self._observed.now, generation
        )

    def _ready(self, ready: bool, reason: str, message: str, stalled: bool, stall_reason: str | None = None) -> None:
        self._set(PackageCondition.READY, ready, reason, message)
        self._conditions = without_condition(self._conditions, PackageCondition.RECONCILING)
        if stalled:
            self._set(PackageCondition.STALLED, True, stall_reason or reason, message)
        else:
            self._conditions = without_condition(self._conditions, PackageCondition.STALLED)

    def _progress(self, reason: str, message: str) -> None:
        """On the way: Ready stays what it was where an archive is active."""
        self._set(PackageCondition.RECONCILING, True, reason, message)
        self._conditions = without_condition(self._conditions, PackageCondition.STALLED)
        if self._active is None:
            self._set(PackageCondition.READY, False, PackageReason.PROGRESSING, message)

    def _candidate(self, digest: str | None, version: str | None) -> None:
        known = self._status.candidate
        same = known is not None and known.digest == digest
        since = known.since if same and known is not None else self._observed.now
        self._changes["candidate"] = CandidatePackage(digest=digest, version=version, since=since)

    def _remember(self, entry: HistoryEntry) -> None:
        self._changes["history"] = remembered((entry, *self._status.history))

    def _repull(self) -> None:
        interval = self._observed.package.spec.interval
        seconds = 0.0 if interval is None else parse_span(interval)
        if seconds:
            self._again(timedelta(seconds=seconds))

    def _await_news(self) -> None:
        if self._observed.package.spec.interval is not None:
            self._actions.append(AwaitNews())

    def _again(self, after: timedelta) -> None:
        after = max(after, timedelta(0))
        self._requeue = after if self._requeue is None else min(self._requeue, after)


def remembered(history: tuple[HistoryEntry, ...]) -> tuple[HistoryEntry, ...]:
    """The newest entries of ``history`` (newest first), at most HISTORY_KEPT; the newest ACCEPTED_KEPT accepted ones
    stay whatever came after them."""
    accepted = [entry for entry in history if entry.accepted][:ACCEPTED_KEPT]
    kept = {id(entry) for entry in accepted}
    for entry in history:
        if len(kept) >= HISTORY_KEPT:
            break
        kept.add(id(entry))
    return tuple(entry for entry in history if id(entry) in kept)


def _of_folder(package: CloacinaPackage) -> bool:
    """Whether a folder declares it, which sees all its archives and says by itself whose the object is."""
    return package.metadata.labels.get(FOLDER_LABEL) == FOLDER


def fetched_message(digest: str) -> str:
    """Of the Fetched condition."""
    return f"digest {digest}"
