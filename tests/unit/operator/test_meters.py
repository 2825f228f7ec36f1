"""Figures for Prometheus: what pollers tell is counted, and the guide names what there is."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from cloaca.resources.trigger import Tick, TickOutcome

pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")
from cloacina_operator.hosts.metrics import Meters, state
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.queue import Queue

from cloaca.store.sql.store import SqlStore

GUIDE = Path(__file__).parents[3] / "docs" / "howto" / "watch-with-prometheus.md"
NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)


def test_a_blocked_poll_is_no_poll_and_store_errors_tell_whose_they_are() -> None:
    meters = Meters()
    meters.ticked("demo", Tick(time=NOW, outcome=TickOutcome.BLOCKED), fires=0, duplicates=0)
    meters.ticked("demo", Tick(time=NOW, outcome=TickOutcome.FIRED, duration_ms=20), fires=2, duplicates=1)
    meters.store_failed("demo")
    meters.operator_store_failed()
    counted = {
        (sample.name, *sample.labels.values()): sample.value
        for family in meters.registry.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert counted == {
        ("cloacina_polls_blocked_total", "demo"): 1,
        ("cloacina_polls_total", "demo", "fired"): 1,
        ("cloacina_fires_total", "demo"): 2,
        ("cloacina_fires_deduplicated_total", "demo"): 1,
        ("cloacina_store_errors_total", "operator", ""): 1,
        ("cloacina_store_errors_total", "poller", "demo"): 1,
    }


async def test_the_guide_names_every_figure_and_no_other() -> None:
    meters = Meters()
    meters.ticked("demo", Tick(time=NOW, outcome=TickOutcome.FIRED), fires=1, duplicates=0)
    found = {family.name for family in meters.registry.collect()}
    found |= {family.name for family in state(Queue(), Index(await SqlStore.open(":memory:")))}
    section = GUIDE.read_text().partition("## The figures")[2].partition("##")[0]
    named = {name.removesuffix("_total") for name in re.findall(r"cloacina_\w+", section)}
    assert named == found
