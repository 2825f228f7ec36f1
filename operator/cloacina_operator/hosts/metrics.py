"""The figures of runs and the queue, for Prometheus: one definition for every host. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from cloaca.polling.meters import PollMeters, StoreErrors
from cloaca.resources import CloacinaPackage, RunPhase, Trigger, WorkflowRun
from cloaca.store.oddities import Oddities
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.queue import Queue

_LONG = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


class Meters:
    """Counts what the index of runs tells, and where the store did not answer the operator. ``registry`` has it all."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._store_errors = StoreErrors(self.registry)
        self._operators = self._store_errors.of_operator()
        self._run_seconds = Histogram(
            "cloacina_run_seconds",
            "From the start of runs to their end.",
            ["phase"],
            buckets=_LONG,
            registry=self.registry,
        )
        for phase in RunPhase:
            if phase.finished:  # a series that begins at 1 would hide its first run from increase()
                self._run_seconds.labels(phase.value)

    def polls(self) -> PollMeters:
        """Counts those of pollers that live in this process, too. Call it once."""
        return PollMeters(self.registry, self._store_errors)

    def operator_store_failed(self) -> None:
        """The store did not answer the operator itself."""
        self._operators.inc()

    def run_ended(self, run: WorkflowRun) -> None:
        """A run has ended. To be called once for each."""
        status = run.status
        seconds = 0.0
        if status.started_at is not None and status.finished_at is not None:
            seconds = (status.finished_at - status.started_at).total_seconds()
        self._run_seconds.labels(status.phase.value).observe(max(0.0, seconds))


class State:
    """Tells a scrape what is so at its moment. Scrapes are answered on the event loop that ``queue`` and ``index``
    belong to."""

    def __init__(self, queue: Queue, index: Index, oddities: Oddities | None = None) -> None:
        """``oddities``: those of the store."""
        self._queue, self._index, self._oddities = queue, index, oddities or Oddities()

    def collect(self) -> Iterator[Metric]:
        """Of prometheus_client."""
        length = GaugeMetricFamily("cloacina_operator_queue_length", "Objects that wait to be looked at, or are.")
        length.add_metric([], len(self._queue))
        yield length
        runs = GaugeMetricFamily("cloacina_runs", "Runs that have not ended, by phase.", labels=["phase"])
        running = self._index.count_running()
        runs.add_metric(["Running"], running)
        runs.add_metric(["Pending"], self._index.count_unfinished() - running)
        yield runs
        errors = GaugeMetricFamily(
            "cloacina_trigger_consecutive_errors", "Polls that failed in a row.", labels=["namespace", "trigger"]
        )
        for trigger in self._index.triggers():
            errors.add_metric([trigger.ref.namespace, trigger.ref.name], trigger.consecutive_errors)
        yield errors
        left_out = GaugeMetricFamily(
            "cloacina_objects_left_out", "Objects that cannot be read or handled, by kind.", labels=["kind"]
        )
        for kind, count in {CloacinaPackage.KIND: 0, Trigger.KIND: 0, WorkflowRun.KIND: 0,
                            **self._oddities.count_by_kind()}.items():  # fmt: skip
            left_out.add_metric([kind], count)
        yield left_out
        aside = GaugeMetricFamily(
            "cloacina_namespaces_set_aside",
            "1 for each namespace of which the API server refuses to show something; empty: all namespaces.",
            labels=["namespace"],
        )
        for namespace in sorted(self._oddities.namespaces_set_aside()):
            aside.add_metric([namespace], 1)
        yield aside
