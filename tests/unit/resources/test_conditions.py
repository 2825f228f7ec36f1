"""Conditions: they move only when something changed, and every constant of theirs is documented."""

from datetime import datetime, timedelta, timezone

import pytest

from cloaca.resources import Condition, ConditionStatus
from cloaca.resources.conditions import (
    CONDITIONS,
    MESSAGE_LIMIT,
    POD_TROUBLE,
    PackageCondition,
    PackageReason,
    Reason,
    RunReason,
    TriggerReason,
    bounded,
    find,
    is_true,
    set_condition,
    without_condition,
)

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
LATER = NOW + timedelta(minutes=1)
FETCHED = Condition(
    type="Fetched",
    status=ConditionStatus.TRUE,
    reason="Fetched",
    message="3 KiB",
    last_transition_time=NOW,
    observed_generation=1,
)
AGREED = FETCHED.model_copy(update={"type": "Agreed", "reason": "Agreed"})


def test_a_new_condition_is_appended_with_the_time_of_now() -> None:
    assert set_condition((AGREED,), PackageCondition.FETCHED, True, PackageReason.FETCHED, "3 KiB", NOW, 1) == (
        AGREED,
        FETCHED,
    )


def test_nothing_changed_gives_the_very_same_tuple() -> None:
    before = (FETCHED, AGREED)
    assert set_condition(before, "Fetched", True, "Fetched", "3 KiB", LATER, 1) is before


@pytest.mark.parametrize(
    ("change", "transition"),
    [
        pytest.param({"reason": "Fetching"}, NOW, id="reason"),
        pytest.param({"message": "4 KiB"}, NOW, id="message"),
        pytest.param({"generation": 2}, NOW, id="generation"),
        pytest.param({"status": False}, LATER, id="status to False"),
        pytest.param({"status": None}, LATER, id="status to Unknown"),
        pytest.param({"status": ConditionStatus.UNKNOWN}, LATER, id="status to Unknown, as the enum"),
    ],
)
def test_the_transition_time_moves_only_with_the_status(change: dict[str, object], transition: datetime) -> None:
    said: dict[str, object] = {"status": True, "reason": "Fetched", "message": "3 KiB", "generation": 1} | change

    after = set_condition((FETCHED, AGREED), "Fetched", now=LATER, **said)  # type: ignore[arg-type]  # a table of keywords

    assert after[1] is AGREED
    assert after[0].last_transition_time == transition
    assert (after[0].reason, after[0].message, after[0].observed_generation) == (
        said["reason"],
        said["message"],
        said["generation"],
    )


def test_a_condition_is_found_by_its_type() -> None:
    assert find((FETCHED, AGREED), "Agreed") is AGREED
    assert find((FETCHED,), PackageCondition.AGREED) is None
    assert is_true((FETCHED,), PackageCondition.FETCHED)
    assert not is_true((FETCHED,), PackageCondition.AGREED)


def test_a_condition_that_no_longer_holds_can_be_taken_out() -> None:
    before = (FETCHED, AGREED)
    assert without_condition(before, "Fetched") == (AGREED,)
    assert without_condition(before, "Stalled") is before


@pytest.mark.parametrize("character", ["a", "é", "😀"])
def test_a_long_message_keeps_its_head_and_its_tail(character: str) -> None:
    message = f"ImportError: no module 'x'\n{character * 9000}\nlast line"
    cut = bounded(message)
    assert len(cut.encode()) <= MESSAGE_LIMIT
    assert cut.startswith("ImportError: no module 'x'\n")
    assert cut.endswith("last line")
    assert "left out" in cut


def test_a_message_with_a_lone_surrogate_is_made_encodable() -> None:
    assert bounded("bad \udcff name").encode() == b"bad ? name"


def test_what_is_stored_is_plain_text() -> None:
    (stored,) = set_condition((), PackageCondition.READY, True, PackageReason.READY, "", NOW, 1)
    assert (type(stored.type), type(stored.reason)) == (str, str)
    assert stored.to_json_dict() == {
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "",
        "lastTransitionTime": "2026-03-28T09:00:00.000000Z",
        "observedGeneration": 1,
    }


@pytest.mark.parametrize(
    ("kind", "reasons"),
    [("CloacinaPackage", PackageReason), ("Trigger", TriggerReason), ("WorkflowRun", RunReason)],
)
def test_every_reason_is_documented_and_belongs_to_a_condition(kind: str, reasons: type) -> None:
    declared = {value for value in vars(reasons).values() if isinstance(value, Reason)}
    used = {reason for condition in CONDITIONS[kind] for reason in condition.reasons}
    assert declared | (set(POD_TROUBLE) & used) == used
    assert used <= declared | set(POD_TROUBLE)
    for reason in used:
        assert reason.isalnum(), reason
        assert reason.meaning.endswith("."), reason


@pytest.mark.parametrize("kind", list(CONDITIONS))
def test_every_kind_can_be_read_by_kstatus(kind: str) -> None:
    polarity = {str(condition): condition.good.value for condition in CONDITIONS[kind]}
    assert polarity["Ready"] == "True"
    assert polarity["Stalled"] == polarity.get("Reconciling", "False") == "False"
