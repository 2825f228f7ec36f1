"""The figures of polls, runs and the queue, for Prometheus: one definition for every host. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from cloaca.errors import CloacaError
from cloaca.resources import WorkflowRun
from cloaca.resources.trigger import Tick, TickOutcome
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.queue import Queue

LOOPBACK = "127.0.0.1"
ANSWER = 5.0  # seconds in which the event loop must tell its state to a scrape

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


class Meters:
    """Counts what pollers and the index of runs tell. ``registry`` has it all."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._polls = Counter("cloacina_polls", "Ticks.", ["package", "result"], registry=self.registry)
        self._poll_seconds = Histogram(
            "cloacina_poll_seconds", "How long polls took.", ["package"], buckets=_SECONDS, registry=self.registry
        )
        self._lateness = Histogram(
            "cloacina_poll_lateness_seconds",
            "How long after they were due polls began.",
            ["package"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._fires = Counter("cloacina_fires", "Runs that polls made.", ["package"], registry=self.registry)
        self._deduplicated = Counter(
            "cloacina_fires_deduplicated", "Fires whose key had run before.", ["package"], registry=self.registry
        )
        self._blocked = Counter(
            "cloacina_polls_blocked", "Polls put off by an active run.", ["package"], registry=self.registry
        )
        self._store_errors = Counter(
            "cloacina_store_errors",
            "Times that the store did not answer the operator, or the poller of a package.",
            ["component", "package"],
            registry=self.registry,
        )
        self._store_errors.labels("operator", "")  # told from the start: none yet
        self._run_seconds = Histogram(
            "cloacina_run_seconds",
            "From the start of runs to their end.",
            ["phase"],
            buckets=_LONG,
            registry=self.registry,
        )

    def served(self, queue: Queue, index: Index) -> LoopbackMetrics:
        """What answers scrapes with these figures and the state of ``queue`` and ``index``."""
        return LoopbackMetrics(self, queue, index)

    def began(self, package: str, lateness: float) -> None:
        """Of PollObserver."""
        self._lateness.labels(package).observe(max(0.0, lateness))

    def ticked(self, package: str, tick: Tick, *, fires: int, duplicates: int) -> None:
        """Of PollObserver."""
        if tick.outcome is TickOutcome.BLOCKED:
            self._blocked.labels(package).inc()
            return
        self._polls.labels(package, tick.outcome.value.lower()).inc()
        self._poll_seconds.labels(package).observe(tick.duration_ms / 1000)
        self._fires.labels(package).inc(fires)
        self._deduplicated.labels(package).inc(duplicates)

    def store_failed(self, package: str) -> None:
        """Of PollObserver."""
        self._store_errors.labels("poller", package).inc()

    def operator_store_failed(self) -> None:
        """The store did not answer the operator itself."""
        self._store_errors.labels("operator", "").inc()

    def run_ended(self, run: WorkflowRun) -> None:
        """A run that had not ended before has ended."""
        status = run.status
        seconds = 0.0
        if status.started_at is not None and status.finished_at is not None:
            seconds = (status.finished_at - status.started_at).total_seconds()
        self._run_seconds.labels(status.phase.value).observe(max(0.0, seconds))


def state(queue: Queue, index: Index) -> list[Metric]:
    """What is so at this moment. Call it on the event loop to which the two belong."""
    length = GaugeMetricFamily("cloacina_operator_queue_length", "Objects that wait to be looked at, or are.")
    length.add_metric([], len(queue))
    runs = GaugeMetricFamily("cloacina_runs", "Runs that have not ended, by phase.", labels=["phase"])
    running = index.count_running()
    runs.add_metric(["Running"], running)
    runs.add_metric(["Pending"], index.count_unfinished() - running)
    errors = GaugeMetricFamily(
        "cloacina_trigger_consecutive_errors", "Polls that failed in a row.", labels=["namespace", "trigger"]
    )
    for trigger in index.triggers():
        errors.add_metric([trigger.metadata.namespace, trigger.name], trigger.status.consecutive_errors)
    return [length, runs, errors]


class LoopbackMetrics:
    """Answers scrapes of one machine, in a thread of its own."""

    def __init__(self, meters: Meters, queue: Queue, index: Index) -> None:
        self._loop = asyncio.get_running_loop()  # both belong to it
        self._queue, self._index = queue, index
        self._registry = meters.registry
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._server: WSGIServer | None = None

    def start(self, port: int) -> None:
        """Listen on the loopback address only. Raises CloacaError where the port is taken."""
        try:
            self._server, _ = start_http_server(port, LOOPBACK, self._registry)
        except OSError as error:
            raise CloacaError(
                f"metrics cannot be served on {LOOPBACK}:{port}: {error.strerror or error}; set another metrics_port"
            ) from error

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.server_close()

    def collect(self) -> Iterator[Metric]:
        """Of prometheus_client, in the server's thread: the event loop is asked for its state."""
        yield from asyncio.run_coroutine_threadsafe(self._state(), self._loop).result(ANSWER)

    def describe(self) -> list[Metric]:
        """Of prometheus_client: registering does not collect, which would wait for the loop that registers."""
        return []

    async def _state(self) -> list[Metric]:
        return state(self._queue, self._index)
