"""Which run a schedule makes, for which time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from cloacina_operator.core.clock import Scheduled, rest, scheduled

from cloaca.resources import ConcurrencyPolicy, ObjectMeta, Trigger, TriggerSpec
from cloaca.resources.package import RunDefaults
from cloaca.resources.trigger import EffectiveSettings, PackageReference, TriggerStatus

FORBID, ALLOW = ConcurrencyPolicy.FORBID, ConcurrencyPolicy.ALLOW


def at(text: str, day: int = 28) -> datetime:
    return datetime.fromisoformat(f"2026-03-{day:02}T{text}+00:00").astimezone(timezone.utc)


def look(
    now: datetime,
    until: datetime | None,
    *,
    deadline: int | None = None,
    policy: ConcurrencyPolicy = FORBID,
    active: tuple[str, ...] = (),
    by: str | None = "*/10 * * * * (UTC)",
    schedule: str = "*/10 * * * *",
    zone: str | None = None,
) -> Scheduled:
    trigger = Trigger(
        metadata=ObjectMeta(name="nightly", uid="u"),
        spec=TriggerSpec(
            package_ref=PackageReference(name="p"),
            name="f",
            schedule=schedule,
            time_zone=zone,
            starting_deadline_seconds=deadline,
        ),
        status=TriggerStatus(scheduled_by=by, scheduled_until=until),
    )
    effective = EffectiveSettings(
        workflow="w",
        poll_interval="5s",
        concurrency_policy=policy,
        timeout="60s",
        config={"table": "t"},
        digest=f"sha256:{'1' * 64}",
    )
    return scheduled(trigger, effective, RunDefaults(), active=active, now=now)


@pytest.mark.parametrize(
    ("said", "fires_for", "until"),
    [
        pytest.param(look(at("09:05:00"), None, by=None), None, at("09:05:00"), id="first look: it counts from now"),
        pytest.param(look(at("09:05:00"), at("08:00:00"), by="0 1 * * * (UTC)"), None, at("09:05:00"), id="set anew"),
        pytest.param(look(at("09:09:59"), at("09:00:00")), None, at("09:00:00"), id="not yet"),
        pytest.param(look(at("09:10:00"), at("09:00:00")), at("09:10:00"), at("09:10:00"), id="on time"),
        pytest.param(look(at("09:10:01"), at("09:10:00")), None, at("09:10:00"), id="once"),
        pytest.param(look(at("11:39:00"), at("09:00:00")), at("11:30:00"), at("11:30:00"), id="the latest of many"),
        pytest.param(
            look(at("09:10:31"), at("09:00:00"), deadline=30), None, at("09:10:00"), id="over the deadline: given up"
        ),
        pytest.param(
            look(at("09:10:30"), at("09:00:00"), deadline=30), at("09:10:00"), at("09:10:00"), id="within the deadline"
        ),
        pytest.param(
            look(at("09:10:00"), at("09:00:00"), active=("r",)), None, at("09:00:00"), id="Forbid waits, and keeps it"
        ),
        pytest.param(
            look(at("09:10:00"), at("09:00:00"), active=("r",), policy=ALLOW),
            at("09:10:00"),
            at("09:10:00"),
            id="Allow does not wait",
        ),
        pytest.param(look(at("08:00:00"), at("09:00:00")), None, at("08:00:00"), id="a clock that was set back"),
        pytest.param(
            look(at("08:10:00"), at("08:00:00")), at("08:10:00"), at("08:10:00"), id="and goes on from there, no stall"
        ),
        pytest.param(
            look(at("08:59:30"), at("09:00:00")), None, at("09:00:00"), id="another operator, a little behind"
        ),
        pytest.param(
            look(at("01:30:00", 29), at("00:00:00", 29), schedule="30 2 * * *", zone="Europe/Zurich",
                 by="30 2 * * * (Europe/Zurich)"),
            at("01:00:00", 29),
            at("01:00:00", 29),
            id="an hour that clocks skip",
        ),
    ],
)  # fmt: skip
def test_what_the_clock_makes(said: Scheduled, fires_for: datetime | None, until: datetime) -> None:
    assert (said.run is not None, said.status.scheduled_until) == (fires_for is not None, until)
    if said.run is not None and fires_for is not None:
        assert said.run.name == f"nightly-at-{int(fires_for.timestamp())}"
        moment = fires_for.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        assert (said.run.spec.key, said.run.spec.context) == (moment, {"table": "t", "scheduled_time": moment})
        assert (said.status.last_run, said.status.ticks[0].runs) == (said.run.name, (said.run.name,))


def test_it_looks_again_when_the_next_time_comes() -> None:
    assert look(at("09:10:04"), at("09:10:00")).after == timedelta(minutes=9, seconds=56)
    assert "next at 2026-03-28T09:20:00Z" in look(at("09:10:04"), at("09:10:00")).message


def test_a_clock_that_rests_forgets_where_it_was() -> None:
    rested = rest(TriggerStatus(scheduled_by="x", scheduled_until=at("09:00:00")))
    assert (rested.scheduled_by, rested.scheduled_until) == (None, None)
    assert rest(rested) is rested
