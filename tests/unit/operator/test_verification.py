"""What the Verified condition says: never True for what nobody verified, and absent where nothing was asked."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from cloacina_operator.core.packages import Fetched, ObservedPackage, PackagePlan, PollerState, plan
from cloacina_operator.core.plan import EnsurePoller, Fetch, Inspect

from cloaca.packages.acceptance import Accepted
from cloaca.resources import CloacinaPackage, Condition, ObjectMeta, PackageSpec
from cloaca.resources.conditions import PackageCondition, PackageReason, find
from cloaca.resources.package import ActivePackage, PackageSource, PackageStatus, TriggerEntry, Verification
from cloaca.resources.phases import ConditionStatus

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
DIGEST, OTHER = ("sha256:" + digit * 64 for digit in "01")
KEYS = Verification(public_keys=("-----BEGIN PUBLIC KEY-----",))
ACCEPTED = Accepted(version="1.0.0", workflows=(), tasks=(), triggers=())


def package(status: PackageStatus | None = None, **spec: Any) -> CloacinaPackage:
    return CloacinaPackage(
        metadata=ObjectMeta(name="demo", uid="u", generation=2),
        spec=PackageSpec(source=PackageSource(url="https://example.com/demo.cloacina"), **spec),
        status=status or PackageStatus(),
    )


def verified(message: str, reason: str = PackageReason.VERIFIED) -> PackageStatus:
    before = Condition(
        type="Verified", status=ConditionStatus.TRUE, reason=reason, message=message, last_transition_time=NOW
    )
    return PackageStatus(conditions=(before,))


def decide(of: CloacinaPackage, fetched: str | None = DIGEST, poller: PollerState | None = None) -> PackagePlan:
    return plan(
        ObservedPackage(
            package=of,
            fetch=None if fetched is None else Fetched(digest=fetched),
            verdict=None if fetched is None else ACCEPTED,
            polled=frozenset(),
            poller=poller,
            now=NOW,
        )
    )


def condition(decided: PackagePlan, kind: str) -> Condition | None:
    assert decided.status is not None
    return find(decided.status.conditions, kind)


def test_a_pinned_archive_is_verified() -> None:
    found = condition(decide(package(digest=DIGEST)), PackageCondition.VERIFIED)
    assert found is not None
    assert (found.status, found.reason, found.message) == (ConditionStatus.TRUE, "Verified", f"digest {DIGEST}")


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(package(), id="nothing was asked"),
        pytest.param(package(verify=Verification()), id="no key was named"),
        pytest.param(package(verified("", "NotAsked")), id="an older version said that it was verified"),
        pytest.param(package(verified(f"digest {DIGEST}")), id="the pin was taken away"),
        pytest.param(package(verified("", "NotAsked"), suspend=True), id="suspended since an older version"),
    ],
)
def test_where_no_check_is_asked_for_there_is_no_condition(of: CloacinaPackage) -> None:
    assert condition(decide(of), PackageCondition.VERIFIED) is None


def test_a_pin_that_nothing_was_compared_with_yet_is_not_verified() -> None:
    decided = decide(package(verified(f"digest {DIGEST}"), digest=OTHER), fetched=None)
    assert condition(decided, PackageCondition.VERIFIED) is None


@pytest.mark.parametrize("fetched", [None, DIGEST], ids=["not fetched", "fetched by an older version"])
@pytest.mark.parametrize("pin", [None, DIGEST], ids=["not pinned", "pinned"])
def test_a_package_that_asks_for_signatures_is_refused_and_not_fetched(fetched: str | None, pin: str | None) -> None:
    decided = decide(package(verify=KEYS, digest=pin), fetched)
    for kind, status in (("Verified", "False"), ("Ready", "False"), ("Stalled", "True")):
        found = condition(decided, kind)
        assert found is not None
        assert (found.status.value, found.reason) == (status, "SignaturesUnsupported")
        assert "signatures are not checked by this version: remove spec.verify" in found.message
    assert not [action for action in decided.actions if isinstance(action, (Fetch, Inspect))]
    assert decided.status is not None
    assert decided.status.active is None
    assert decided.requeue_after is None


def test_the_active_archive_of_such_a_package_goes_on() -> None:
    entries = (TriggerEntry(name="inbox", workflow="demo", poll_interval="1s"),)
    active = ActivePackage(digest=DIGEST, version="1.0.0", since=NOW)
    of = package(PackageStatus(active=active, triggers=entries), verify=KEYS)
    decided = decide(of, poller=PollerState(digest=DIGEST))
    assert EnsurePoller(digest=DIGEST) in decided.actions
    ready, stalled = condition(decided, "Ready"), condition(decided, "Stalled")
    assert ready is not None
    assert stalled is not None
    assert (ready.status.value, ready.reason, stalled.reason) == ("False", "CandidateRefused", "SignaturesUnsupported")


def test_without_the_keys_it_goes_on() -> None:
    refused = decide(package(verify=KEYS)).status
    decided = decide(package(refused))
    assert condition(decided, "Verified") is None
    assert condition(decided, "Stalled") is None
    assert decided.status is not None
    assert decided.status.active is not None
