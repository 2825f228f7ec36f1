"""Which Events an object is worth, and that none is said twice, too often, or of somebody else's trigger."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cloacina_operator.core.events import LONGEST_NOTE, Event, events_of
from cloacina_operator.shell.announcer import AT_ONCE, BURST, Announcer

from cloaca.errors import AlreadyExists, Forbidden, StoreUnavailable
from cloaca.resources import (
    CloacinaPackage,
    Condition,
    ConditionStatus,
    ObjectMeta,
    Resource,
    RunPhase,
    RunSpec,
    Trigger,
    TriggerSpec,
    WorkflowRun,
)
from cloaca.resources.package import ActivePackage, CandidatePackage, PackageSource, PackageSpec, PackageStatus
from cloaca.resources.run import RunStatus, TriggerReference
from cloaca.resources.trigger import PackageReference, Tick, TickOutcome, TriggerStatus

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
BEFORE = NOW - timedelta(minutes=1)
LONG_AGO = NOW - timedelta(hours=1)


def condition(
    type: str,  # the API's own word
    status: bool,
    reason: str,
    message: str = "words",
    at: datetime = BEFORE,
    generation: int = 1,
) -> Condition:
    value = ConditionStatus.TRUE if status else ConditionStatus.FALSE
    return Condition(
        type=type, status=value, reason=reason, message=message, last_transition_time=at, observed_generation=generation
    )


def package(*conditions: Condition, **status: Any) -> CloacinaPackage:
    spec = PackageSpec(source=PackageSource(url="https://example.com/a.cloacina"))
    return CloacinaPackage(
        metadata=ObjectMeta(name="demo", uid="p1"), spec=spec, status=PackageStatus(conditions=conditions, **status)
    )


def trigger(*conditions: Condition, name: str = "watch", uid: str = "t1", **status: Any) -> Trigger:
    spec = TriggerSpec(package_ref=PackageReference(name="demo"), name=name)
    return Trigger(
        metadata=ObjectMeta(name=name, uid=uid), spec=spec, status=TriggerStatus(conditions=conditions, **status)
    )


def run(
    *conditions: Condition, name: str = "r", fired: bool = False, of: str = "demo", at: datetime = BEFORE, **status: Any
) -> WorkflowRun:
    by = TriggerReference(name="watch", uid="t1") if fired else None
    return WorkflowRun(
        metadata=ObjectMeta(name=name, uid=f"uid-{name}", creation_timestamp=at),
        spec=RunSpec(workflow="w", package_ref=PackageReference(name=of), trigger_ref=by, key="k" if fired else None),
        status=RunStatus(conditions=conditions, **status),
    )


def active(digest: str) -> ActivePackage:
    return ActivePackage(digest=digest, version="1", since=BEFORE)


def tick(outcome: TickOutcome, reason: str = "") -> Tick:
    return Tick(time=BEFORE, outcome=outcome, reason=reason)


def said(event: Event) -> str:
    return f"{event.about.kind} {event.about.name}: {'!' if event.warning else ''}{event.reason}: {event.note}"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(package(), [], id="package: new"),
        pytest.param(package(condition("Ready", False, "Progressing")), [], id="package: on its way"),
        pytest.param(
            package(condition("Ready", True, "Ready", "version 1 is active"), active=active("sha256:1")),
            ["CloacinaPackage demo: Ready: version 1 is active"],
            id="package: ready",
        ),
        pytest.param(
            package(condition("Ready", False, "NamesDisagree", "no task 'a'")),
            ["CloacinaPackage demo: !NamesDisagree: no task 'a'"],
            id="package: refused",
        ),
        pytest.param(
            package(condition("Ready", False, "Suspended")), ["CloacinaPackage demo: Suspended: words"], id="suspended"
        ),
        pytest.param(
            trigger(
                condition("Ready", True, "Ready"),
                condition("Polling", False, "PollerFailed"),
                condition("Degraded", False, "Healthy", ""),
            ),
            [],
            id="trigger: its poller starts",
        ),
        pytest.param(
            trigger(condition("Ready", True, "Ready"), condition("Polling", True, "Polling", "every 5s")),
            ["Trigger watch: Polling: every 5s"],
            id="trigger: polled",
        ),
        pytest.param(
            trigger(condition("Ready", False, "WorkflowUnknown"), condition("Polling", False, "NotReady")),
            ["Trigger watch: !WorkflowUnknown: words"],
            id="trigger: unfit",
        ),
        pytest.param(trigger(condition("Ready", False, "PackageNotReady")), [], id="trigger: of a package on its way"),
        pytest.param(
            trigger(condition("Polling", False, "Suspended")), ["Trigger watch: Suspended: words"], id="trigger: rests"
        ),
        pytest.param(
            trigger(condition("Degraded", True, "ErrorsInARow")),
            ["Trigger watch: !ErrorsInARow: words"],
            id="trigger: degraded",
        ),
        pytest.param(
            trigger(condition("Degraded", False, "Recovered")), ["Trigger watch: Recovered: words"], id="recovered"
        ),
        pytest.param(
            trigger(ticks=(tick(TickOutcome.BLOCKED, "run r is active"),)),
            ["Trigger watch: Blocked: run r is active"],
            id="trigger: blocked",
        ),
        pytest.param(
            trigger(ticks=(tick(TickOutcome.SKIPPED), tick(TickOutcome.DEDUPLICATED, "key fired before"))),
            [],
            id="trigger: skips, and met a key before",
        ),
        pytest.param(run(), [], id="run: submitted"),
        pytest.param(run(fired=True), ["Trigger watch: Fired: run r for key 'k'"], id="run: fired"),
        pytest.param(run(condition("Started", False, "WaitingForRun")), [], id="run: in line"),
        pytest.param(
            run(condition("Started", False, "WaitingForPackage")),
            ["WorkflowRun r: !WaitingForPackage: words"],
            id="run: without an archive",
        ),
        pytest.param(
            run(condition("Started", False, "Retrying", "signal 9"), attempt=1, failures=1),
            ["WorkflowRun r: !Retrying: signal 9"],
            id="run: an attempt died",
        ),
        pytest.param(
            run(
                condition("Ready", True, "Completed"),
                phase=RunPhase.COMPLETED,
                started_at=LONG_AGO,
                finished_at=LONG_AGO + timedelta(seconds=1.5),
                attempt=2,
            ),
            ["WorkflowRun r: Completed: completed in 1.5 s, with attempt 2"],
            id="run: completed",
        ),
        pytest.param(
            run(condition("Ready", False, "TaskFailed"), phase=RunPhase.FAILED, finished_at=BEFORE, message="task 'a'"),
            ["WorkflowRun r: !TaskFailed: task 'a'"],
            id="run: failed",
        ),
        pytest.param(
            run(fired=True, phase=RunPhase.DEDUPLICATED, finished_at=BEFORE, message="key 'k' had fired"),
            ["WorkflowRun r: Deduplicated: key 'k' had fired"],
            id="run: had fired before",
        ),
        pytest.param(
            run(phase=RunPhase.CANCELLED, finished_at=BEFORE), ["WorkflowRun r: Cancelled: cancelled"], id="cancelled"
        ),
    ],
)
def test_what_an_object_is_worth(obj: Resource[Any, Any], expected: list[str]) -> None:
    assert [said(event) for event in events_of(obj)] == expected


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        pytest.param(
            package(condition("Ready", True, "Ready"), active=active("sha256:1")),
            package(condition("Ready", True, "Ready", "other words"), active=active("sha256:1")),
            True,
            id="package: the same archive",
        ),
        pytest.param(
            package(condition("Ready", True, "Ready"), active=active("sha256:1")),
            package(condition("Ready", True, "Ready"), active=active("sha256:2")),
            False,
            id="package: another archive",
        ),
        pytest.param(
            package(
                condition("Ready", False, "ImportFailed"), candidate=CandidatePackage(digest="sha256:1", since=NOW)
            ),
            package(
                condition("Ready", False, "ImportFailed"), candidate=CandidatePackage(digest="sha256:2", since=NOW)
            ),
            False,
            id="package: another archive is refused for the same",
        ),
        pytest.param(
            trigger(condition("Polling", True, "Polling", at=LONG_AGO)),
            trigger(condition("Polling", True, "Polling", at=BEFORE)),
            True,
            id="trigger: its poller was started again",
        ),
        pytest.param(
            trigger(condition("Polling", True, "Polling", generation=1)),
            trigger(condition("Polling", True, "Polling", generation=3)),
            False,
            id="trigger: it was suspended in between",
        ),
        pytest.param(
            trigger(condition("Degraded", True, "ErrorsInARow", "once")),
            trigger(condition("Degraded", True, "ErrorsInARow", "again")),
            True,
            id="trigger: still degraded",
        ),
        pytest.param(
            trigger(condition("Degraded", True, "ErrorsInARow", at=LONG_AGO)),
            trigger(condition("Degraded", True, "ErrorsInARow", at=BEFORE)),
            False,
            id="trigger: degraded once more",
        ),
        pytest.param(
            run(condition("Started", False, "Retrying"), attempt=1, failures=1),
            run(condition("Started", False, "Retrying"), attempt=2, failures=2),
            False,
            id="run: the next attempt died",
        ),
    ],
)
def test_the_name_of_an_event_tells_what_happened_once(
    before: Resource[Any, Any], after: Resource[Any, Any], same: bool
) -> None:
    (first,), (second,) = events_of(before), events_of(after)
    assert (first.name == second.name) is same


def test_the_object_is_one_that_the_api_takes() -> None:
    (event,) = events_of(package(condition("Ready", False, "ImportFailed", "é" * 5_000)))
    document = event.document("operator-0", NOW, left_out=3)
    assert len(document["note"].encode()) <= LONGEST_NOTE
    assert document["note"].endswith("(and 3 more since the last of these)")
    assert document["regarding"]["uid"] == "p1"
    assert document["eventTime"] == "2026-03-28T09:00:00.000000Z"
    assert len(document["metadata"]["name"]) <= 253


class Record:
    """Takes what an announcer sends. ``answers``: what is raised, in order; after them nothing."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.tried = 0
        self.notes: list[str] = []
        self.news = asyncio.Event()

    async def __call__(self, namespace: str, document: dict[str, Any]) -> None:
        self.tried += 1
        if self.answers:
            raise self.answers.pop(0)
        self.notes.append(f"{document['reason']}: {document['note']}")
        self.news.set()

    async def until(self, count: int) -> list[str]:
        while len(self.notes) < count:
            self.news.clear()
            await self.news.wait()
        return self.notes


class Stage:
    """An announcer that is told of objects, and a clock."""

    def __init__(self, *answers: Exception) -> None:
        self.record, self.now = Record(*answers), NOW
        self.announcer = Announcer(self.record, instance="me", now=lambda: self.now)

    def see(self, *objects: Resource[Any, Any]) -> None:
        for obj in objects:
            self.announcer.seen(obj.ref, obj)

    async def sent(self, count: int) -> list[str]:
        sending = asyncio.ensure_future(self.announcer.run())
        try:
            return list(await asyncio.wait_for(self.record.until(count), 30))
        finally:
            sending.cancel()
            await asyncio.wait({sending})


LAST = package(condition("Ready", True, "Ready", "the last"), active=active("sha256:f"))


async def test_what_is_said_once_is_not_said_again_and_what_is_old_is_no_news() -> None:
    stage = Stage()
    degraded = trigger(condition("Degraded", True, "ErrorsInARow"))
    old = trigger(condition("Degraded", True, "ErrorsInARow", at=LONG_AGO), name="other", uid="t2")
    ended = run(phase=RunPhase.FAILED, finished_at=LONG_AGO, message="long ago")
    stage.see(degraded, old, ended, degraded, old)
    stage.see(trigger(condition("Ready", False, "Duplicate", at=LONG_AGO), name="other", uid="t2"), LAST)
    assert await stage.sent(3) == ["ErrorsInARow: words", "Duplicate: words", "Ready: the last"]


async def test_a_run_that_has_ended_is_told_once_however_often_it_is_seen() -> None:
    stage = Stage()
    ended = run(fired=True, phase=RunPhase.COMPLETED, finished_at=BEFORE)
    stage.see(trigger(), ended)
    for _ in range(20):  # it stays for longer than anything is news
        stage.now += timedelta(minutes=1)
        stage.see(ended, run(name=f"r{stage.now:%M}", phase=RunPhase.CANCELLED, finished_at=stage.now))
    sent = await stage.sent(22)
    assert [note for note in sent if "ancelled" not in note] == ["Fired: run r for key 'k'", "Completed: completed"]
    assert "r20" in repr(stage.announcer._known)
    assert "r01" not in repr(stage.announcer._known)


async def test_an_object_made_again_under_the_name_has_events_of_its_own() -> None:
    stage = Stage()
    first, second = (trigger(condition("Polling", True, "Polling", "every 5s"), uid=uid) for uid in ("t1", "t2"))
    stage.see(first)
    stage.announcer.seen(first.ref, None)
    stage.see(second, LAST)
    assert await stage.sent(3) == ["Polling: every 5s"] * 2 + ["Ready: the last"]


async def test_a_burst_is_summed_up() -> None:
    stage = Stage()
    stage.see(trigger())
    stage.see(*(run(name=f"r{number}", fired=True) for number in range(BURST + 7)))
    stage.now += timedelta(minutes=1)
    stage.see(run(name="late", fired=True, at=stage.now))
    sent = await stage.sent(BURST + 1)
    assert sent[:BURST] == [f"Fired: run r{number} for key 'k'" for number in range(BURST)]
    assert sent[BURST:] == ["Fired: run late for key 'k' (and 7 more since the last of these)"]


async def test_what_many_objects_say_at_once_is_bounded() -> None:
    stage = Stage()
    for number in range(AT_ONCE + 50):
        stage.see(trigger(condition("Polling", True, "Polling"), name=f"t{number}", uid=f"t{number}"))
    stage.now += timedelta(seconds=1)
    stage.see(LAST)
    assert len(await stage.sent(AT_ONCE + 1)) == AT_ONCE + 1


async def test_what_often_is_so_is_seldom_said() -> None:
    stage = Stage()
    for number in range(5):
        stage.see(trigger(ticks=(tick(TickOutcome.DEDUPLICATED, f"key fired before: run {number}"),)))
        stage.see(trigger(ticks=(tick(TickOutcome.FIRED),)))
    stage.see(LAST)
    assert await stage.sent(2) == ["Deduplicated: key fired before: run 0", "Ready: the last"]


async def test_nobody_speaks_for_the_trigger_of_another_package() -> None:
    stage = Stage()
    stage.see(trigger(), run(fired=True, of="other"), run(name="own", fired=True), LAST)
    assert await stage.sent(2) == ["Fired: run own for key 'k'", "Ready: the last"]


async def test_a_run_that_is_seen_before_its_trigger_is_told_of_it_later() -> None:
    """Each kind has a watch of its own."""
    stage = Stage()
    ended = run(name="early", fired=True, phase=RunPhase.COMPLETED, finished_at=BEFORE)
    stage.see(ended, run(name="false", fired=True, of="other"), trigger(), trigger(), ended, LAST)
    assert await stage.sent(3) == ["Completed: completed", "Fired: run early for key 'k'", "Ready: the last"]


@pytest.mark.parametrize(
    ("answer", "tries"),
    [(AlreadyExists("there"), 2), (Forbidden("the namespace is going"), 2), (StoreUnavailable("away"), 3)],
    ids=["another said it", "refused", "the server is away"],
)
async def test_an_answer_holds_nothing_up(answer: Exception, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloacina_operator.shell.announcer._PAUSE", 0.0)
    stage = Stage(answer)
    stage.see(trigger(condition("Polling", True, "Polling", "every 5s")), LAST)
    assert (await stage.sent(tries - 1))[-1] == "Ready: the last"
    assert stage.record.tried == tries
