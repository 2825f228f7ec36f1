"""The operator on a cluster, hosted by kopf: reads settings, waits to lead, wires and runs. Decides nothing.

``cloacina-operator``. kopf's events only put references on our queue: such handlers add no
finalizer and no annotation, and are never tried again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import kopf
from kopf._core.engines.peering import Identity  # a str; kopf exports it under no name

from cloaca.errors import CloacaError
from cloaca.resources import CloacinaPackage, Ref, WorkflowRun
from cloaca.resources.ref import GROUP, VERSION
from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.config import SCHEME, find_server, parse_url
from cloaca.store.kubernetes.store import KubernetesStore
from cloacina_operator.cluster_settings import ClusterSettings, read_cluster_settings
from cloacina_operator.executors.jobs import Jobs
from cloacina_operator.executors.parts import together
from cloacina_operator.hosts.cluster_logs import set_up
from cloacina_operator.hosts.counted import CountedRuns
from cloacina_operator.hosts.lease import Lease
from cloacina_operator.hosts.metrics import Meters
from cloacina_operator.hosts.web import Web
from cloacina_operator.shell.announcer import Announcer
from cloacina_operator.shell.archives import Archives
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.queue import Queue
from cloacina_operator.shell.reconcile import Reconciler, utc_now

log = logging.getLogger("cloacina.operator")

_KOPF_FOLDER = str(Path(kopf.__file__).parent)
KOPF_PAUSES = (1.0, 5.0, 15.0, 60.0)  # seconds before kopf is started again
LEAST_INTERVAL = timedelta(seconds=10)  # between two pulls of a source
REQUEST_TIMEOUT = 30.0  # seconds; kopf waits five minutes where nobody says so
WORKERS = 50  # of kopf, which knows no limit by itself
LINGERS = 0.1  # seconds that one of them waits for more of its object; the next object waits for it, held in memory
SILENCE = 300  # seconds after which the server ends a watch of kopf


class Operator:
    """What one leader consists of. Belongs to one event loop."""

    def __init__(
        self, settings: ClusterSettings, api: Api, store: KubernetesStore, meters: Meters, counted: CountedRuns
    ) -> None:
        self._settings = settings
        self._store = store
        self.queue = Queue()
        self._announcer = Announcer(partial(_record_event, api), instance=settings.identity, now=utc_now)
        self.oddities = store.oddities
        self.oddities.told = self._announcer.left_out
        self.index = Index(store, counted, self._announcer.seen, oddities=self.oddities, counted_until=counted.until)
        self.jobs = Jobs(
            api=api,
            settings=settings.pods,
            limits=settings.limits,
            namespaces=settings.namespaces,
            changed=self._changed,
            now=utc_now,
            known_uid=store.uid,
            oddities=self.oddities,
        )
        self._archives = Archives(
            store=store,
            executor=self.jobs,
            changed=self.queue.add,
            kept_in=None,
            least_interval=LEAST_INTERVAL,
            store_failed=meters.operator_store_failed,
        )
        self._reconciler = Reconciler(
            store=store,
            executor=self.jobs,
            archives=self._archives,
            index=self.index,
            queue=self.queue,
            now=utc_now,
            limits=settings.runs,
            store_failed=meters.operator_store_failed,
            oddities=self.oddities,
        )

    def _changed(self, ref: Ref) -> None:
        """The executor saw something new of an object: have it looked at."""
        if ref.kind == WorkflowRun.KIND:
            self.index.may_have_process(ref)
        self.queue.add(ref)

    @property
    def heard_at(self) -> float:
        """When the watch that has been silent the longest told of anything, by the monotonic clock."""
        return min(self._store.heard_at, self.jobs.heard_at)

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until ``stopping``, or until one of its parts ends, which raises what ended it."""
        try:
            await together(
                [self.jobs.run(), self._reconcile(), self._announcer.run(), self._host(stopping), stopping.wait()]
            )
        finally:
            await self._archives.close()

    async def _reconcile(self) -> None:
        await self.jobs.listed()  # before that, what is not known may still be there
        log.info("everything was seen once; reconciling")
        await self._reconciler.run()

    async def _host(self, stopping: asyncio.Event) -> None:
        """Keep kopf running until cancelled.

        kopf ends when the API server refuses one of its namespaces. It is started again with back-off, without the
        namespaces that are set aside, and once more when one of those is back.
        """
        tries = 0
        while True:
            began = asyncio.get_running_loop().time()
            ended_by = await self._host_once(stopping)
            if asyncio.get_running_loop().time() - began > KOPF_PAUSES[-1]:
                tries = 0
            if ended_by is not None:
                pause = KOPF_PAUSES[min(tries, len(KOPF_PAUSES) - 1)]
                log.warning("kopf ended, it is started again in %g s: %s", pause, ended_by)
                tries += 1
                await asyncio.sleep(pause)

    async def _host_once(self, stopping: asyncio.Event) -> str | None:
        """Run kopf until it ends, and say what of; None: the namespaces that it has to follow are other ones now."""
        followed, before = self._followed(), asyncio.all_tasks()
        if self._settings.namespaces and not followed:
            await asyncio.sleep(KOPF_PAUSES[0])
            return None
        try:
            roots = await kopf.spawn_tasks(
                registry=handlers(self.queue),
                settings=quiet_settings(),
                identity=Identity(self._settings.identity),  # else kopf asks for our user's name: a container has none
                standalone=True,  # a Lease decides who leads; peering freezes everybody where priorities are equal
                clusterwide=not self._settings.namespaces,
                namespaces=followed,
            )
            obey(stopping)  # kopf takes the signals for itself
            done: set[asyncio.Task[Any]] = set()
            while not done and followed == self._followed():
                done, _ = await asyncio.wait(roots, timeout=KOPF_PAUSES[0], return_when=asyncio.FIRST_COMPLETED)
            faults = [str(task.exception()) for task in done if not task.cancelled() and task.exception() is not None]
            return ("; ".join(faults) or "no reason given") if done else None
        finally:
            await _end([task for task in asyncio.all_tasks() - before if _is_of_kopf(task)])

    def _followed(self) -> tuple[str, ...]:
        """The namespaces for kopf."""
        aside = self.oddities.namespaces_set_aside()
        return tuple(namespace for namespace in self._settings.namespaces if namespace not in aside)


def _is_of_kopf(task: asyncio.Task[Any]) -> bool:
    """kopf leaves watchers behind when it ends, and its own clean-up would cancel our tasks as well."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_KOPF_FOLDER)


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=REQUEST_TIMEOUT)


async def _record_event(api: Api, namespace: str, document: dict[str, Any]) -> None:
    await api.request("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body=document)


def handlers(queue: Queue) -> kopf.OperatorRegistry:
    """What kopf does with an event: put the reference on the queue, and nothing else.

    Of packages only: triggers and runs, of which there are a hundred times as many, reach the queue through the store's
    own watch, and kopf would hold each of them in memory once more.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**given: Any) -> kopf.ConnectionInfo | None:
        inside = None if "KUBECONFIG" in os.environ else kopf.login_with_service_account(**given)
        if inside is None:
            return kopf.login_with_kubeconfig(**given)
        return replace(
            inside, server=find_server(parse_url(SCHEME), os.environ).url
        )  # by address, as we do: kopf would ask the DNS

    @kopf.on.event(GROUP, VERSION, CloacinaPackage.PLURAL, registry=registry)
    async def changed(namespace: str | None, name: str, **_: Any) -> None:
        queue.add(Ref(CloacinaPackage.KIND, namespace or "", name))

    return registry


def quiet_settings() -> kopf.OperatorSettings:
    """kopf's settings: no events of its own, and a limit on everything that has none."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.networking.request_timeout = REQUEST_TIMEOUT
    settings.queueing.worker_limit = WORKERS
    settings.queueing.idle_timeout = LINGERS
    settings.watching.server_timeout = SILENCE
    settings.scanning.disabled = True  # our kinds are there before us; nobody needs the right to list all of them
    return settings


def obey(stopping: asyncio.Event) -> None:
    """Have SIGTERM and SIGINT set ``stopping``."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)


async def serve(settings: ClusterSettings) -> int:
    """Wait to lead, lead, and stop when asked to; returns the exit code."""
    stopping = asyncio.Event()
    obey(stopping)
    wanted = parse_url(settings.store)
    api = Api(find_server(wanted, os.environ))
    lease = Lease(
        api, namespace=settings.own_namespace, name=settings.lease, me=settings.identity, times=settings.lease_times
    )
    web = Web(api=api, lease=lease if settings.elects else None)
    await web.start(settings.port)
    echoing = asyncio.ensure_future(lease.watched.run()) if settings.elects else None
    try:
        if settings.elects and not await _before(stopping, lease.acquire()):
            return 0
        store = await KubernetesStore.over(api, wanted, sets_aside=True)
        try:
            counted = CountedRuns(web.meters.run_ended, until=lease.counted_until, now=utc_now, keep=lease.keep_counted)
            await _lead(Operator(settings, api, store, web.meters, counted), lease, web, settings, stopping)
        finally:
            await lease.release()
            await store.close()
    finally:
        if echoing is not None:
            echoing.cancel()
            await asyncio.wait({echoing})
        await web.close()
        await api.close()
    return 0


async def _lead(operator: Operator, lease: Lease, web: Web, settings: ClusterSettings, stopping: asyncio.Event) -> None:
    web.operator = operator
    await together([operator.run(stopping), lease.keep() if settings.elects else asyncio.Event().wait()])


async def _before(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether ``work`` came to its end before somebody asked to stop."""
    task, asked = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
    ended = task.done()
    for one in (task, asked):
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one
    return ended


def main() -> int:
    """Run the operator; returns its exit code."""
    try:
        settings = read_cluster_settings(os.environ)
        set_up(settings.log_level)
        return asyncio.run(serve(settings))
    except CloacaError as error:
        print(f"cloacina operator: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
