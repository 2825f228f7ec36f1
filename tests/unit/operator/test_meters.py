"""Figures for Prometheus: the operator's own, and that the guide names what there is."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cloacina_operator.hosts.metrics import Meters, State
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.queue import Queue
from figures import told

from cloaca.resources import ObjectMeta, RunPhase, WorkflowRun
from cloaca.resources.run import RunSpec, RunStatus
from cloaca.store.sql.store import SqlStore

GUIDE = Path(__file__).parents[3] / "docs" / "howto" / "watch-with-prometheus.md"
ENDS = [phase.value for phase in RunPhase if phase.finished]
NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)


def test_an_operator_counts_runs_that_end_and_what_the_store_did_not_answer() -> None:
    meters = Meters()
    ended = RunStatus(phase=RunPhase.FAILED, started_at=NOW, finished_at=NOW + timedelta(seconds=7))
    meters.run_ended(WorkflowRun(metadata=ObjectMeta(name="demo-1"), spec=RunSpec(workflow="demo"), status=ended))
    meters.operator_store_failed()
    seen = told(meters.registry)
    none = {f"cloacina_run_seconds_{what} {phase}": 0 for what in ("count", "sum") for phase in ENDS}
    assert seen == {
        **none,  # series that are there before their first run, which increase() would miss otherwise
        "cloacina_run_seconds_count Failed": 1,
        "cloacina_run_seconds_sum Failed": 7,
        "cloacina_store_errors_total operator": 1,
    }


def test_a_daemon_tells_the_store_errors_of_both_its_halves() -> None:
    meters = Meters()
    poller = meters.polls().of("default", "demo")
    meters.operator_store_failed()
    poller.store_failed()
    poller.store_failed()
    seen = {name: value for name, value in told(meters.registry).items() if "store_errors" in name}
    assert seen == {"cloacina_store_errors_total operator": 1, "cloacina_store_errors_total poller default demo": 2}


async def test_the_guide_names_every_figure_with_its_labels_and_no_other() -> None:
    meters = Meters()
    meters.polls().of("default", "demo")
    meters.registry.register(State(Queue(), Index(await SqlStore.open(":memory:"))))
    found = {family.name for family in meters.registry.collect()}
    section = GUIDE.read_text().partition("## The figures")[2].partition("##")[0]
    named = dict(re.findall(r"`(cloacina_\w+?)(?:_total)?(\{[\w,]+\})?`", section))
    assert named.keys() == found
    for family in meters.registry.collect():
        for sample in family.samples:
            labels = ",".join(name for name in sample.labels if name != "le")
            assert named[family.name] == (f"{{{labels}}}" if labels else "")
