"""Count what pollers tell, for Prometheus: the same figures in the daemon and in a poller's pod. Decides nothing.

The library that counts is an extra, so only what was asked to measure imports this module.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from cloaca.resources.trigger import Tick, TickOutcome

PACKAGE = ("namespace", "package")
"""Labels of everything that is told of a poller. Never more than names, and none that grows with what is polled."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class StoreErrors:
    """Times that the store did not answer, by who had asked."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counter = Counter(
            "cloacina_store_errors",
            "Times that the store did not answer the operator, or the poller of a package.",
            ["component", *PACKAGE],
            registry=registry,
        )

    def of_operator(self) -> Counter:
        """Told from the start, as none."""
        return self._counter.labels("operator", "", "")

    def of_poller(self, namespace: str, package: str) -> Counter:
        """Told from the start, as none."""
        return self._counter.labels("poller", namespace, package)


class PollMeters:
    """Counts polls of any number of packages in ``registry``."""

    def __init__(self, registry: CollectorRegistry, store_errors: StoreErrors | None = None) -> None:
        """``store_errors`` None: nobody else in this process counts any."""
        self.store_errors = store_errors or StoreErrors(registry)
        self.polls = Counter("cloacina_polls", "Ticks.", [*PACKAGE, "result"], registry=registry)
        self.poll_seconds = Histogram(
            "cloacina_poll_seconds", "How long polls took.", PACKAGE, buckets=_SECONDS, registry=registry
        )
        self.lateness = Histogram(
            "cloacina_poll_lateness_seconds",
            "How long after they were due polls began.",
            PACKAGE,
            buckets=_SECONDS,
            registry=registry,
        )
        self.fires = Counter("cloacina_fires", "Runs that polls made.", PACKAGE, registry=registry)
        self.deduplicated = Counter(
            "cloacina_fires_deduplicated", "Fires whose key had run before.", PACKAGE, registry=registry
        )
        self.blocked = Counter("cloacina_polls_blocked", "Polls put off by an active run.", PACKAGE, registry=registry)

    def of(self, namespace: str, package: str) -> PackageMeters:
        """Of Measures."""
        return PackageMeters(self, namespace, package)


class PackageMeters:
    """A PollObserver that counts. Every figure is told from the start, as 0: Prometheus sees the first one of each."""

    def __init__(self, meters: PollMeters, namespace: str, package: str) -> None:
        self._polls = {
            outcome: meters.polls.labels(namespace, package, outcome.value.lower())
            for outcome in TickOutcome
            if outcome is not TickOutcome.BLOCKED
        }
        self._seconds = meters.poll_seconds.labels(namespace, package)
        self._lateness = meters.lateness.labels(namespace, package)
        self._fires = meters.fires.labels(namespace, package)
        self._deduplicated = meters.deduplicated.labels(namespace, package)
        self._blocked = meters.blocked.labels(namespace, package)
        self._store_errors = meters.store_errors.of_poller(namespace, package)

    def began(self, lateness: float) -> None:
        """Of PollObserver."""
        self._lateness.observe(max(0.0, lateness))

    def ticked(self, tick: Tick, *, fires: int, duplicates: int) -> None:
        """Of PollObserver."""
        if tick.outcome is TickOutcome.BLOCKED:
            self._blocked.inc()
            return
        self._polls[tick.outcome].inc()
        self._seconds.observe(tick.duration_ms / 1000)
        self._fires.inc(fires)
        self._deduplicated.inc(duplicates)

    def store_failed(self) -> None:
        """Of PollObserver."""
        self._store_errors.inc()
