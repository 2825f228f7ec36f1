"""Answer probes and scrapes: ``/healthz``, ``/readyz``, ``/metrics``. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

from cloaca.store.kubernetes.api import Api
from cloaca.store.oddities import Oddities
from cloacina_operator.core.leadership import watches_are_dead
from cloacina_operator.executors.jobs import Jobs
from cloacina_operator.hosts.lease import Lease
from cloacina_operator.hosts.metrics import Meters, State
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.queue import Queue


class Leading(Protocol):
    """What is measured of an operator that leads."""

    queue: Queue
    index: Index
    jobs: Jobs
    oddities: Oddities

    @property
    def heard_at(self) -> float:
        """When the watch that has been silent the longest told of anything, by the monotonic clock."""
        ...


class Web:
    """One port. Belongs to one event loop."""

    def __init__(self, *, api: Api, lease: Lease | None) -> None:
        """``lease`` None: it leads without one."""
        self._api = api
        self._lease = lease
        self.operator: Leading | None = None  # None: another one leads
        self.meters = Meters()
        self._registry = self.meters.registry
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        application = web.Application()
        application.router.add_get("/healthz", self._healthy)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, port: int) -> None:
        """Listen on all addresses: the kubelet and Prometheus come from outside of the pod."""
        await self._runner.setup()
        await web.TCPSite(self._runner, None, port).start()

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _healthy(self, _request: web.Request) -> web.Response:
        if self._lease is not None and not self._lease.healthy():
            return web.Response(status=500, text="the lease is written, and does not come back through the watch\n")
        if self.operator is not None and watches_are_dead(self._api.answered_at, self.operator.heard_at):
            return web.Response(status=500, text="the API server answers, and a watch of it does not tell anything\n")
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        return web.Response(text="leads\n" if self.operator is not None else "waits to lead\n")

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def collect(self) -> Iterator[Metric]:
        """Of prometheus_client: the figures of this moment."""
        leads = GaugeMetricFamily("cloacina_operator_leader", "1 where this operator leads.")
        leads.add_metric([], float(self.operator is not None))
        yield leads
        asked = CounterMetricFamily(
            "cloacina_operator_api_requests",
            "Requests to the API server, but those of kopf.",
            labels=["verb", "resource"],
        )
        for (verb, resource), count in self._api.requests.items():
            asked.add_metric([verb, resource], count)
        yield asked
        if self.operator is None:
            return
        yield from State(self.operator.queue, self.operator.index, self.operator.oddities).collect()
        active = GaugeMetricFamily("cloacina_operator_runs_active", "Jobs of runs that have not ended.")
        active.add_metric([], len(self.operator.jobs.running()))
        yield active
        started = CounterMetricFamily("cloacina_operator_runs_started", "Jobs made for attempts of runs.")
        started.add_metric([], self.operator.jobs.started_runs)
        yield started
