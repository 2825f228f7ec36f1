"""Settings of the operator on a cluster: environment variables, read once, in the host, into one frozen object."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from cloaca.packages.addresses import SourcePolicy
from cloaca.packages.archive import Limits
from cloaca.polling.schedule import JITTER
from cloaca.polling.workers import WORKER_MEMORY
from cloacina_operator.core.leadership import LeaseTimes
from cloacina_operator.core.manifests import POLLER_PORT, PodSettings
from cloacina_operator.core.turns import RunLimits
from cloacina_operator.settings import SettingsError

T = TypeVar("T")

PREFIX = "CLOACINA_"


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Everything that can be set of the operator on a cluster."""

    pods: PodSettings
    namespaces: tuple[str, ...] = ()
    """``CLOACINA_NAMESPACES``: those whose packages are looked after, with commas; empty: all of the cluster."""
    own_namespace: str = "default"
    """``CLOACINA_POD_NAMESPACE``: where the Lease is."""
    identity: str = ""
    """``CLOACINA_POD``: who we are in the Lease; unset: the host name."""
    lease: str = "cloacina-operator"
    """``CLOACINA_LEASE``: name of the Lease; ``-``: lead without one."""
    lease_times: LeaseTimes = field(default_factory=LeaseTimes)
    """``CLOACINA_LEASE_DURATION``, ``…_RENEW_DEADLINE``, ``…_RETRY_PERIOD``, in seconds."""
    store: str = "kubernetes:"
    """``CLOACINA_STORE``: where the operator itself reads and writes."""
    runs: RunLimits = field(default_factory=lambda: RunLimits(total=1_000, per_namespace=500))
    """``CLOACINA_MAX_RUNS``, ``…_PER_NAMESPACE``, ``…_PER_PACKAGE``: how many runs may have a Job; others wait."""
    port: int = 8080
    """``CLOACINA_PORT``: of ``/healthz``, ``/readyz`` and ``/metrics``."""
    log_level: str = "info"
    """``CLOACINA_LOG_LEVEL``: debug, info, warning or error."""
    limits: Limits = field(default_factory=Limits)

    @property
    def elects(self) -> bool:
        """Whether a Lease decides who leads."""
        return self.lease != "-"


@dataclass(frozen=True, kw_only=True)
class _Given:
    """Settings as they stand in the environment. What one cannot be goes to ``faults``; then its default is read."""

    environment: Mapping[str, str]
    faults: list[str] = field(default_factory=list)

    def text(self, name: str, default: str) -> str:
        return self.environment.get(PREFIX + name) or default

    def count(self, name: str, default: int) -> int:
        given = self.text(name, str(default))
        if given.isdecimal() and int(given) > 0:
            return int(given)
        return self._fault(name, given, "a whole number of at least 1", default)

    def switch(self, name: str) -> bool:
        given = self.text(name, "false")
        if given in ("true", "false"):
            return given == "true"
        return self._fault(name, given, "true or false", default=False)

    def port_or_none(self, name: str, default: int) -> int:
        given = self.text(name, str(default))
        if given.isdecimal() and (int(given) == 0 or 1024 <= int(given) <= 65_535):
            return int(given)
        return self._fault(name, given, "a port from 1024 to 65535, or 0 for none", default)

    def fraction(self, name: str, default: float) -> float:
        given = self.text(name, str(default))
        with suppress(ValueError):
            if 0.0 <= float(given) <= 1.0:
                return float(given)
        return self._fault(name, given, "a number from 0 to 1", default)

    def _fault(self, name: str, given: str, wanted: str, default: T) -> T:
        self.faults.append(f"{PREFIX}{name} is {given!r}, but must be {wanted}")
        return default


def read_cluster_settings(environment: Mapping[str, str]) -> ClusterSettings:
    """The settings in ``environment``. Raises SettingsError, which names every fault."""
    given = _Given(environment=environment)
    text, count, faults = given.text, given.count, given.faults
    namespaces = tuple(dict.fromkeys(name.strip() for name in text("NAMESPACES", "").split(",") if name.strip()))
    image = text("IMAGE", "")
    if not image:
        faults.append(f"{PREFIX}IMAGE must be set: the runtime image of pods, where a package names none")
    level = text("LOG_LEVEL", "info")
    if level not in ("debug", "info", "warning", "error"):
        faults.append(f"{PREFIX}LOG_LEVEL is {level!r}, but must be debug, info, warning or error")
    pods = PodSettings(
        image=image or "unset",
        image_pull_policy=text("IMAGE_PULL_POLICY", "IfNotPresent"),
        sources=SourcePolicy(
            local=given.switch("SOURCES_ALLOW_LOCAL"),
            allow_private=given.switch("SOURCES_ALLOW_PRIVATE"),
            allowed_hosts=frozenset(
                host.strip().lower() for host in text("SOURCES_ALLOWED_HOSTS", "").split(",") if host.strip()
            ),
        ),
        image_pull_secrets=tuple(name for name in text("IMAGE_PULL_SECRETS", "").split(",") if name),
        poller_service_account=text("POLLER_SERVICE_ACCOUNT", "cloacina-poller"),
        inspection_service_account=text("INSPECTION_SERVICE_ACCOUNT", "cloacina-inspection"),
        run_service_account=text("RUN_SERVICE_ACCOUNT", "cloacina-run"),
        store=text("POD_STORE", "") or None,
        import_timeout=count("IMPORT_TIMEOUT", 60),
        job_ttl=count("JOB_TTL", 3600),
        worker_memory=count("WORKER_MEMORY", WORKER_MEMORY),
        jitter=given.fraction("JITTER", JITTER),
        poller_port=given.port_or_none("POLLER_PORT", POLLER_PORT),
    )
    times = LeaseTimes(
        duration=count("LEASE_DURATION", 15),
        renew_deadline=count("LEASE_RENEW_DEADLINE", 10),
        retry_period=count("LEASE_RETRY_PERIOD", 2),
    )
    if (overlap := times.fault()) is not None:
        faults.append(f"{PREFIX}LEASE_DURATION: {overlap}")
    own = text("POD_NAMESPACE", "default")
    total = count("MAX_RUNS", 1_000)
    settings = ClusterSettings(
        pods=pods,
        namespaces=namespaces,
        own_namespace=own,
        identity=text("POD", socket.gethostname()),
        lease=text("LEASE", "cloacina-operator"),
        lease_times=times,
        store=text("STORE", f"kubernetes:?cached=true&namespace={','.join(namespaces)}"),
        runs=RunLimits(
            total=total,
            per_namespace=count("MAX_RUNS_PER_NAMESPACE", max(1, total // 2)),
            per_package=count("MAX_RUNS_PER_PACKAGE", total),
        ),
        port=count("PORT", 8080),
        log_level=level,
    )
    if faults:
        raise SettingsError("; ".join(faults))
    return settings
