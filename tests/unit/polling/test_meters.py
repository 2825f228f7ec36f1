"""Figures of pollers, for Prometheus: what they tell is counted, of each package by itself."""

from __future__ import annotations

from datetime import datetime, timezone

from figures import told
from prometheus_client import CollectorRegistry

from cloaca.polling.meters import PollMeters
from cloaca.resources.trigger import Tick, TickOutcome

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)


def test_a_blocked_poll_is_no_poll_and_packages_are_told_apart() -> None:
    registry = CollectorRegistry()
    meters = PollMeters(registry)
    one, other = meters.of("team-a", "demo"), meters.of("team-b", "demo")
    one.began(0.25)
    one.ticked(Tick(time=NOW, outcome=TickOutcome.FIRED, duration_ms=20), fires=2, duplicates=1)
    one.ticked(Tick(time=NOW, outcome=TickOutcome.BLOCKED), fires=0, duplicates=0)
    one.store_failed()
    other.ticked(Tick(time=NOW, outcome=TickOutcome.ERROR, duration_ms=500), fires=0, duplicates=0)
    assert {name: value for name, value in told(registry).items() if value} == {
        "cloacina_polls_total team-a demo fired": 1,
        "cloacina_polls_blocked_total team-a demo": 1,
        "cloacina_poll_seconds_count team-a demo": 1,
        "cloacina_poll_seconds_sum team-a demo": 0.02,
        "cloacina_poll_lateness_seconds_count team-a demo": 1,
        "cloacina_poll_lateness_seconds_sum team-a demo": 0.25,
        "cloacina_fires_total team-a demo": 2,
        "cloacina_fires_deduplicated_total team-a demo": 1,
        "cloacina_store_errors_total poller team-a demo": 1,
        "cloacina_polls_total team-b demo error": 1,
        "cloacina_poll_seconds_count team-b demo": 1,
        "cloacina_poll_seconds_sum team-b demo": 0.5,
    }


def test_every_figure_of_a_package_is_there_before_its_first_poll() -> None:
    """Else Prometheus meets the first error as a series that begins with 1, and counts no increase."""
    registry = CollectorRegistry()
    PollMeters(registry).of("team", "demo")
    assert [name for name, value in told(registry).items() if name.startswith("cloacina_polls") and value == 0] == [
        "cloacina_polls_total team demo fired",
        "cloacina_polls_total team demo skipped",
        "cloacina_polls_total team demo deduplicated",
        "cloacina_polls_total team demo error",
        "cloacina_polls_blocked_total team demo",
    ]
