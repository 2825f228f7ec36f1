"""A package whose file or folder cannot be used goes on with what it has, and says so."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from cloacina_operator.core.packages import Fetched, ObservedPackage, PollerState, plan
from cloacina_operator.core.plan import EnsurePoller, Fetch

from cloaca.resources import CloacinaPackage, ObjectMeta, PackageSpec
from cloaca.resources.conditions import find
from cloaca.resources.package import ActivePackage, PackageSource, PackageStatus, TriggerEntry

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
GOOD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
ENTRY = TriggerEntry(name="inbox", workflow="demo", poll_interval="5s")
WHY = "/packages/demo.cloacina cannot be read: it is a named pipe, not a file"


def observed(*, pinned: str = GOOD, trouble: str | None = WHY, fetch: Fetched | None = None) -> ObservedPackage:
    source = PackageSource(url="file:///packages/demo.cloacina")
    active = ActivePackage(digest=GOOD, version="1.0.0", since=NOW)
    return ObservedPackage(
        package=CloacinaPackage(
            metadata=ObjectMeta(name="demo", uid="u", generation=1),
            spec=PackageSpec(source=source, digest=pinned),
            status=PackageStatus(active=active, triggers=(ENTRY,), trigger_count=1),
        ),
        fetch=fetch,
        verdict=None,
        polled=frozenset({"inbox"}),
        poller=PollerState(digest=GOOD),
        source_trouble=trouble,
        now=NOW,
    )


@pytest.mark.parametrize(
    "fetch", [pytest.param(None, id="after a start"), pytest.param(Fetched(digest=GOOD), id="once it was fetched")]
)
def test_what_is_active_is_polled_and_not_fetched_again(fetch: Fetched | None) -> None:
    decided = plan(observed(fetch=fetch))
    assert decided.actions == (EnsurePoller(digest=GOOD),)
    said = {condition.type: (condition.status.value, condition.reason) for condition in decided.status.conditions}
    assert said == {
        "Fetched": ("False", "SourceUnavailable"),
        "Agreed": ("True", "Agreed"),
        "Polling": ("True", "Polling"),
        "Ready": ("False", "SourceUnavailable"),
    }
    ready = find(decided.status.conditions, "Ready")
    assert ready is not None
    assert ready.message == f"{WHY}; version 1.0.0 goes on working"


def test_a_new_archive_is_fetched_though_another_file_cannot_be_used() -> None:
    assert Fetch() in plan(observed(pinned=NEW)).actions


def test_when_the_file_is_right_again_the_package_is_ready() -> None:
    away = plan(observed(fetch=Fetched(digest=GOOD)))
    again = observed(trouble=None, fetch=Fetched(digest=GOOD))
    back = plan(
        ObservedPackage(
            package=again.package.model_copy(update={"status": away.status}),
            fetch=again.fetch,
            verdict=None,
            polled=again.polled,
            poller=again.poller,
            now=NOW,
        )
    )
    said = {condition.type: (condition.status.value, condition.reason) for condition in back.status.conditions}
    assert (said["Fetched"], said["Ready"]) == (("True", "Fetched"), ("True", "Ready"))
