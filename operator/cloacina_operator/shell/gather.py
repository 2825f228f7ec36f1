"""Look up everything that a decision may see. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from cloaca.packages.acceptance import Accepted
from cloaca.resources import CloacinaPackage, ConcurrencyPolicy, Ref, Trigger, WorkflowRun
from cloaca.resources.names import object_name
from cloaca.resources.spans import parse_span
from cloaca.store import Store
from cloacina_operator.core.namesakes import is_second
from cloacina_operator.core.packages import Fetched, ObservedPackage
from cloacina_operator.core.runs import ObservedRun, Sibling, policy_of
from cloacina_operator.core.triggers import ACTIVE_SHOWN, ObservedTrigger
from cloacina_operator.executors.base import Executor
from cloacina_operator.shell.archives import Archives
from cloacina_operator.shell.index import Index
from cloacina_operator.shell.ledgers import Ledgers


class Gather:
    """Makes one observation from the store, the index, the executor and what became of archives."""

    def __init__(
        self,
        *,
        store: Store,
        index: Index,
        executor: Executor,
        archives: Archives,
        ledgers: Ledgers,
        source_trouble: Callable[[Ref], str | None],
    ) -> None:
        """``source_trouble`` says why the file that declares a package cannot be used; None: it can, or none does."""
        self._store = store
        self._index = index
        self._executor = executor
        self._archives = archives
        self._ledgers = ledgers
        self._source_trouble = source_trouble

    async def package(self, package: CloacinaPackage, now: datetime) -> ObservedPackage:
        """All about one package."""
        seconds = 0.0 if package.spec.interval is None else parse_span(package.spec.interval)
        every = timedelta(seconds=seconds) if seconds else None
        await self._archives.remember(package, every, now)
        fetch = self._archives.fetched(package, every, now)
        verdict = self._archives.verdict(package, fetch.digest) if isinstance(fetch, Fetched) else None
        return ObservedPackage(
            package=package,
            fetch=fetch,
            verdict=verdict,
            namesake=await self._namesake(package, verdict.name) if isinstance(verdict, Accepted) else None,
            polled=frozenset(trigger.function for trigger in self._index.triggers_of(package.ref)),
            poller=self._executor.poller(package.ref),
            taken=self._index.taken_names(package),
            inspection=self._executor.inspection(package.ref),
            source_trouble=self._source_trouble(package.ref),
            now=now,
        )

    async def _namesake(self, package: CloacinaPackage, name: str | None) -> str | None:
        """The package whose object has the name of ``package``'s archive; None: its object is ``package`` itself."""
        if name is None or not is_second(package, name):
            return None
        other = await self._package(object_name(name), package.metadata.namespace)
        if other is None:
            return None
        return other.name if other.status.active is None else other.status.active.name or other.name

    async def trigger(self, trigger: Trigger, now: datetime) -> ObservedTrigger:
        """All about one trigger."""
        package = await self._package(trigger.spec.package_ref.name, trigger.metadata.namespace)
        poller = None if package is None else self._executor.poller(package.ref)
        active, count = self._index.unfinished_of(trigger, ACTIVE_SHOWN)
        return ObservedTrigger(
            trigger=trigger,
            package=package,
            active_runs=active,
            active_count=count,
            finished_runs=self._index.finished_of(trigger),
            older_twin=self._index.older_twin(trigger),
            poller_alive=poller is not None and poller.failure is None and not poller.starting,
            now=now,
        )

    async def run(self, run: WorkflowRun, now: datetime) -> ObservedRun:
        """All about one run."""
        if run.status.phase.finished:
            return ObservedRun(run=run, digest=None, keeper=self._index.keeps(run), now=now)
        owner = self._index.owner(run)
        if owner is not None:  # before its key is looked for in the ledger of a trigger that is not its own
            return ObservedRun(run=run, digest=None, owner=owner, execution=self._executor.execution(run.ref), now=now)
        digest, missing, unaccepted = await self._archive(run)
        trigger = None
        if run.spec.trigger_ref is not None:
            trigger = await self._store.get(Trigger, run.spec.trigger_ref.name, run.metadata.namespace)
        fired_before = await self._ledgers.fired_before(run)
        policy = policy_of(run, trigger)
        siblings: tuple[Sibling, ...] = ()
        if policy in (ConcurrencyPolicy.FORBID, ConcurrencyPolicy.REPLACE):
            siblings = tuple(self._seen(sibling, run) for sibling in self._index.siblings(run))
        return ObservedRun(  # nobody else gets a turn from here until a start is noted in the index
            run=run,
            digest=digest,
            missing=missing,
            unaccepted=unaccepted,
            context_bytes=0 if run.status.attempt else _bytes_of(run.spec.context),
            fired_before=fired_before,
            policy=policy,
            siblings=siblings,
            begun=self._index.has_begun(run),
            execution=self._executor.execution(run.ref),
            now=now,
        )

    def _seen(self, sibling: Sibling, run: WorkflowRun) -> Sibling:
        """A process that has not said yet that it is there counts too: another operator may have started it."""
        there = self._executor.execution(Ref(WorkflowRun.KIND, run.metadata.namespace, sibling.name)) is not None
        return replace(sibling, started=True) if there else sibling

    async def _archive(self, run: WorkflowRun) -> tuple[str | None, str, str]:
        """(digest to run, what is missing where there is none, why the digest that the run pins is refused)."""
        if run.spec.package_ref is None:
            return None, "the run names no package (spec.packageRef): only the program that made it can execute it", ""
        package = await self._package(run.spec.package_ref.name, run.metadata.namespace)
        if package is None:
            return None, f"there is no CloacinaPackage {run.spec.package_ref.name!r} in this namespace", ""
        active = package.status.active
        if active is None:
            return None, f"package {package.name!r} has no accepted archive: see its conditions", ""
        pinned = run.spec.digest
        if pinned is None or pinned in package.accepted_digests:
            return pinned or active.digest, "", ""
        refused = f"package {package.name!r} has not accepted an archive with digest {pinned}"
        return None, "", f"{refused}: submit a run without spec.digest, which runs the active one, {active.digest}"

    async def _package(self, name: str, namespace: str) -> CloacinaPackage | None:
        return await self._store.get(CloacinaPackage, name, namespace)


def _bytes_of(context: dict[str, Any]) -> int:
    """Its size as JSON."""
    return len(json.dumps(context, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"))
