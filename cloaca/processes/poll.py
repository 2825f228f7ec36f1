"""The main process of a poller's pod: keeps time, talks to the store. User code runs in the zygote that it starts."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cloaca.errors import CloacaError
from cloaca.packages.process import import_nothing_from_working_folder
from cloaca.polling.observe import PollObserver, Unobserved
from cloaca.polling.poller import Poller
from cloaca.polling.schedule import JITTER
from cloaca.polling.workers import WORKER_MEMORY
from cloaca.processes.exits import obey_at_once
from cloaca.processes.launch import Nursery, PackageZygote
from cloaca.processes.mounted import arguments, mounted, say_last
from cloaca.store import open_store

log = logging.getLogger("cloaca.poll")

DRAIN = 20.0  # seconds that polls get to end and to be recorded; the pod's grace is longer
IMPORT_TIMEOUT = 60.0  # seconds


def main(given: Sequence[str] | None = None) -> int:
    """Poll until SIGTERM; returns 0 then, and 1 where the package, its process or the store is lost: the kubelet starts
    it again, less and less often."""
    signal.signal(signal.SIGTERM, obey_at_once)
    parser = arguments("Poll the triggers of one package.")
    parser.add_argument("--store", required=True, help="URL of the store")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--package", required=True, help="name of the CloacinaPackage")
    parser.add_argument("--drain", type=float, default=DRAIN, help="seconds that polls get to end when it is to stop")
    parser.add_argument(
        "--worker-memory", type=int, default=WORKER_MEMORY, help="bytes that a worker may have resident"
    )
    parser.add_argument("--jitter", type=float, default=JITTER, help="part of an interval that chance may add to it")
    parser.add_argument("--metrics-port", type=int, default=0, help="where Prometheus may scrape; 0: nowhere")
    asked = parser.parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_poll(asked))
    except CloacaError as error:
        words = f"{error}\n{getattr(error, 'traceback_text', '')}".rstrip()
        print(words, file=sys.stderr)
        say_last(words)
        return 1
    return 0


async def _poll(asked: Namespace) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    package = await asyncio.to_thread(mounted, asked.archive, asked.digest, asked.scratch)
    nursery = await Nursery.start()
    store = await open_store(asked.store)
    try:
        zygote = nursery.package(root=package.root, entry_module=package.entry_module, env={}, log=None)
        await zygote.inventory(IMPORT_TIMEOUT)
        async with _measured(asked) as observer:
            poller = Poller(
                store,
                package=asked.package,
                namespace=asked.namespace,
                digest=asked.digest,
                start_worker=zygote.start_worker,
                worker_memory=asked.worker_memory,
                jitter=asked.jitter,
                observer=observer,
            )
            log.info("polling package %s at %s", asked.package, asked.digest)
            await _until_stopped(poller, zygote, stopping, asked.drain)
    finally:
        await nursery.close()
        await store.close()


@asynccontextmanager
async def _measured(asked: Namespace) -> AsyncIterator[PollObserver]:
    """Who hears of the polls, and tells Prometheus. Where that cannot be, it is said, and polls go on without."""
    if not asked.metrics_port:
        yield Unobserved()
        return
    try:
        from prometheus_client import CollectorRegistry

        from cloaca.polling.meters import PollMeters
        from cloaca.processes.scrapes import Scrapes
    except ModuleNotFoundError as error:
        said = "no metrics: the image lacks %s, which pip install 'cloacina[metrics]' brings"
        log.warning(said, error.name)
        yield Unobserved()
        return
    registry = CollectorRegistry()
    observer = PollMeters(registry).of(asked.namespace, asked.package)
    scrapes = Scrapes(registry)
    try:
        await scrapes.start(asked.metrics_port)
    except OSError as error:  # a sidecar's, perhaps: it is not worth a single poll
        said = "no metrics: port %d cannot be had (%s): give pollers another one (CLOACINA_POLLER_PORT of the operator)"
        log.warning(said, asked.metrics_port, error.strerror or error)
    try:
        yield observer
    finally:
        await scrapes.close()


async def _until_stopped(poller: Poller, zygote: PackageZygote, stopping: asyncio.Event, drain: float) -> None:
    """Return when asked to stop; raises CloacaError where the zygote ends, and whatever ends the poller."""
    polling = asyncio.ensure_future(poller.run())
    lost = asyncio.ensure_future(zygote.ended())
    asked = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({polling, lost, asked}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            log.info("stopping: waiting up to %g s for polls", drain)
            await poller.drain(drain)
        elif polling.done():
            polling.result()
        else:
            raise CloacaError(f"the process of the package ended ({lost.result().how})")
    finally:
        for task in (polling, lost, asked):
            task.cancel()
        await asyncio.wait({polling, lost, asked})


if __name__ == "__main__":
    import_nothing_from_working_folder()
    sys.exit(main())
