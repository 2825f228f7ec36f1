"""Where a command works: the home of a daemon on this machine, or a cluster. Opens its store; looks at no object."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from cloaca.cli.running import Working, absence_of_daemon, daemon_process, holder_of, home_of_file, seated
from cloaca.errors import CloacaError, StoreUnavailable
from cloaca.home import STORE_VARIABLE, VARIABLE, Home, absolute

if TYPE_CHECKING:
    from cloaca.store import Store
    from cloaca.store.kubernetes.store import KubernetesStore

CONTEXT_VARIABLE = "CLOACINA_KUBE_CONTEXT"
"""Names a context of the kubeconfig: commands work on that cluster where no option says otherwise."""
DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the options say about the place."""

    home: Path | None = None
    store: str | None = None
    kube_context: str | None = None
    kubeconfig: Path | None = None
    kubernetes: bool = False

    @property
    def names_cluster(self) -> bool:
        """Whether any of them names a cluster."""
        return self.kubernetes or self.kube_context is not None or self.kubeconfig is not None

    def over(self, other: Wanted) -> Wanted:
        """Both; where they differ, this one holds."""
        return Wanted(
            home=self.home or other.home,
            store=self.store or other.store,
            kube_context=self.kube_context or other.kube_context,
            kubeconfig=self.kubeconfig or other.kubeconfig,
            kubernetes=self.kubernetes or other.kubernetes,
        )


@dataclass(frozen=True)
class Laptop:
    """The home of a daemon."""

    home: Home
    store: str | None = None  # what an option or the environment names; None: the settings of the home say

    @property
    def url(self) -> str:
        """Of its store. Raises StoreUnavailable for what cannot be one."""
        from cloaca.store.of_home import named_store, store_url

        return store_url(self.home, self.store or named_store(self.home))

    @property
    def has_store(self) -> bool:
        """Whether there may be something in its store: always, where that is no file."""
        from cloaca.store.sql.url import SqliteUrl, parse_url

        url = parse_url(self.url)
        return not isinstance(url, SqliteUrl) or Path(url.path).exists()

    @property
    def namespace(self) -> str:
        """Where objects are looked for if nobody says otherwise."""
        return DEFAULT_NAMESPACE

    async def idle(self, store: Store) -> str:
        """Why nobody works on what is there, and what to do; empty: somebody does. ``store``: its own, open."""
        return (await self.daemon(store)).absence

    async def daemon(self, store: Store) -> Working:
        """Who works on what is there. ``store``: its own, open."""
        from cloaca.store.sql.url import SqliteUrl, parse_url

        url = parse_url(self.url)
        owner = home_of_file(url.path) if isinstance(url, SqliteUrl) else None  # its daemon takes no seat
        process = None if owner is None else daemon_process(owner)
        if process is not None:
            return Working(where=f"process {process}")
        seat = await seated(store)
        if seat is None and owner == self.home:
            return Working(absence=absence_of_daemon(self.home))
        return holder_of(seat, datetime.now(timezone.utc))

    async def open(self, *, make: bool) -> Store:
        """Its store. ``make``: a home that is not there is made. Raises StoreUnavailable."""
        from cloaca.store import open_store

        home = self.home
        if not make and not self.has_store:
            raise StoreUnavailable(
                f"nothing was ever deployed in the home {home.root}: start `cloaca daemon` or apply something, "
                f"or name another home with --home or ${VARIABLE}, or a cluster with --kube-context"
            )
        try:
            home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreUnavailable(
                f"the home {home.root} cannot be made: {error.strerror or error}; name another one with --home"
            ) from error
        return await open_store(self.url)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """An API server, as a kubeconfig names it."""

    kubeconfig: Path | None  # None: as kubectl finds it
    context: str | None  # None: the current one

    @property
    def namespace(self) -> str:
        """Of the context. Raises StoreUnavailable where there is no such context."""
        from cloaca.store.kubernetes.config import find_server, parse_url

        return find_server(parse_url(self.url(None)), os.environ).namespace

    @property
    def name(self) -> str:
        """For a person."""
        return f"context {self.context}" if self.context else f"the current context of {self.kubeconfig or 'kubectl'}"

    async def idle(self, store: Store) -> str:  # noqa: ARG002  # as of a laptop
        """Empty: whether an operator works is nothing that everybody may see; conditions tell."""
        return ""

    def url(self, namespace: str | None) -> str:
        """Of the store, which looks into ``namespace`` only; None: into all."""
        options = {"context": self.context, "namespace": namespace}
        query = urlencode({name: value for name, value in options.items() if value})
        path = "" if self.kubeconfig is None else f"//{quote(os.fsencode(absolute(self.kubeconfig)))}"
        return f"kubernetes:{path}{'?' if query else ''}{query}"

    async def open(self, namespace: str | None) -> KubernetesStore:
        """Its store. Raises StoreUnavailable."""
        from cloaca.store import open_store

        store: KubernetesStore = await open_store(self.url(namespace))  # type: ignore[assignment]  # as its URL says
        return store


Place = Laptop | Cluster


def choose(wanted: Wanted, environment: Mapping[str, str]) -> Place:
    """The place that is meant: a home, unless something names a cluster. Raises CloacaError where both are named.

    Never what ``$KUBECONFIG`` happens to name: a command meant for a laptop must not reach a cluster by accident.
    """
    if wanted.names_cluster and (wanted.home is not None or wanted.store is not None):
        raise CloacaError(
            "--home and --store name what a daemon works on; --kube-context, --kubeconfig and --kubernetes name a "
            "cluster: give one or the other"
        )
    if wanted.names_cluster:
        return Cluster(kubeconfig=wanted.kubeconfig, context=wanted.kube_context)
    if wanted.home is None and wanted.store is None and environment.get(CONTEXT_VARIABLE):
        return Cluster(kubeconfig=None, context=environment[CONTEXT_VARIABLE])
    return Laptop(Home.find(wanted.home, environment), wanted.store or environment.get(STORE_VARIABLE) or None)
