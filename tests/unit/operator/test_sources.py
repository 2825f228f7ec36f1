"""What a package says while its source is asked, away, or has something new."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cloacina_operator.core.packages import (
    Accepted,
    Fetched,
    FetchFailed,
    Hindrance,
    ObservedPackage,
    PollerState,
    Refused,
    plan,
)
from cloacina_operator.core.plan import AwaitNews, Inspect
from cloacina_operator.core.retention import already_fetched, kept_archives

from cloaca.resources import CloacinaPackage, ObjectMeta, PackageSpec
from cloaca.resources.conditions import PackageReason, PodReason, find
from cloaca.resources.package import ActivePackage, HistoryEntry, PackageSource

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")
AWAY = FetchFailed(reason=PackageReason.FETCH_FAILED, message="no route", retry_at=NOW + timedelta(seconds=5))
NEVER = FetchFailed(reason=PackageReason.SOURCE_UNSUPPORTED, message="s3", retry_at=None)
ACCEPTED = Accepted(version="1.0.0")
REFUSED = Refused(reason=PackageReason.NAMES_DISAGREE, message="they differ", version="2.0.0")


def package(**spec: Any) -> CloacinaPackage:
    source = PackageSource(url="https://example.com/demo.cloacina")
    return CloacinaPackage(metadata=ObjectMeta(name="demo", uid="u"), spec=PackageSpec(source=source, **spec))


def looked_at(of: CloacinaPackage, fetch: Any, verdict: Any = None, poller: PollerState | None = None) -> Any:
    return plan(ObservedPackage(package=of, fetch=fetch, verdict=verdict, polled=frozenset(), poller=poller, now=NOW))


def settled(of: CloacinaPackage) -> CloacinaPackage:
    """Once its archive was fetched and accepted."""
    return of.model_copy(update={"status": looked_at(of, Fetched(digest=ONE), ACCEPTED).status})


def changed(of: CloacinaPackage) -> CloacinaPackage:
    """Of a newer generation, that nobody has looked at."""
    return of.model_copy(update={"metadata": of.metadata.model_copy(update={"generation": 2})})


def told(plan: Any) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status.value, one.reason) for one in plan.status.conditions}


@pytest.mark.parametrize(
    ("of", "failed", "ready", "reconciling", "stalled"),
    [
        pytest.param(package(), AWAY, ("False", "FetchFailed"), None, None, id="nothing is active"),
        pytest.param(settled(package()), AWAY, ("True", "Ready"), None, None, id="an archive is active"),
        pytest.param(
            changed(settled(package())), AWAY, ("True", "Ready"), ("True", "FetchFailed"), None, id="a newer spec"
        ),
        pytest.param(
            changed(settled(package())), NEVER, ("True", "Ready"), None, ("True", "SourceUnsupported"), id="no way"
        ),
    ],
)
def test_a_source_that_is_away_leaves_an_active_archive_ready(
    of: CloacinaPackage, failed: FetchFailed, ready: Any, reconciling: Any, stalled: Any
) -> None:
    decided = looked_at(of, failed)
    again = looked_at(of.model_copy(update={"status": decided.status}), failed)

    for one in (decided, again):
        said = told(one)
        assert said["Fetched"] == ("False", failed.reason)
        assert (said["Ready"], said.get("Reconciling"), said.get("Stalled")) == (ready, reconciling, stalled)
        assert one.status.candidate is None
    assert again.status == decided.status


def test_a_newer_spec_is_not_taken_for_carried_out_while_its_source_is_away() -> None:
    decided = looked_at(changed(settled(package())), AWAY)

    ready = find(decided.status.conditions, "Ready")
    assert ready is not None
    assert ready.observed_generation < 2


@pytest.mark.parametrize(
    ("fetch", "verdict", "actions"),
    [
        pytest.param(Fetched(digest=ONE), None, [AwaitNews()], id="it is active"),
        pytest.param(Fetched(digest=TWO), None, [Inspect(digest=TWO)], id="it is being looked at"),
        pytest.param(Fetched(digest=TWO), REFUSED, [AwaitNews()], id="it is refused"),
        pytest.param(AWAY, None, [], id="the source is away"),
    ],
)
def test_news_are_waited_for_once_what_is_there_was_judged(fetch: Any, verdict: Any, actions: list[Any]) -> None:
    assert list(looked_at(settled(package(interval="10s")), fetch, verdict).actions) == actions


@pytest.mark.parametrize(
    ("of", "digest"),
    [
        pytest.param(settled(package()), ONE, id="the spec was carried out"),
        pytest.param(package(), None, id="nothing is active"),
        pytest.param(changed(settled(package())), None, id="a newer spec"),
        pytest.param(
            (lambda of: of.model_copy(update={"status": looked_at(of, None).status}))(changed(settled(package()))),
            None,
            id="a newer spec that was looked at and not fetched",
        ),
        pytest.param(
            (lambda of: of.model_copy(update={"status": looked_at(of, Fetched(digest=TWO), REFUSED).status}))(
                settled(package())
            ),
            None,
            id="a candidate was refused",
        ),
        pytest.param(
            (lambda of: of.model_copy(update={"status": looked_at(of, AWAY).status}))(settled(package())),
            None,
            id="the source is away",
        ),
    ],
)
def test_after_a_restart_nothing_is_fetched_that_the_status_says_was(of: CloacinaPackage, digest: str | None) -> None:
    assert already_fetched(of) == digest


def test_the_active_archive_the_candidate_and_the_last_three_are_kept() -> None:
    digests = [f"sha256:{number:064d}" for number in range(8)]
    history = [HistoryEntry(digest=one, version="1", time=NOW, accepted=number != 2) for number, one in
               enumerate(digests)]  # fmt: skip
    of = package().with_status(active=ActivePackage(digest=digests[0], version="1", since=NOW), history=tuple(history))

    assert kept_archives(of, "candidate", ["pinned"]) == {
        "candidate", "pinned", digests[0], digests[1], digests[3], digests[4],
    }  # fmt: skip
    assert kept_archives(package(), None, []) == frozenset()


@pytest.mark.parametrize(
    ("of", "ready"),
    [
        pytest.param(package(), ("False", "Unschedulable"), id="nothing is active"),
        pytest.param(settled(package()), ("True", "Ready"), id="an archive is active"),
    ],
)
def test_what_keeps_the_pod_that_fetches_from_starting_is_said(of: CloacinaPackage, ready: tuple[str, str]) -> None:
    hindrance = Hindrance(reason=PodReason.UNSCHEDULABLE, message="no node takes it")
    decided = plan(
        ObservedPackage(
            package=of, fetch=None, verdict=None, polled=frozenset(), poller=None, inspection=hindrance, now=NOW
        )
    )
    said = told(decided)
    assert (said["Ready"], said["Reconciling"]) == (ready, ("True", "Unschedulable"))
