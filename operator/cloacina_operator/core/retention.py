"""Say which archives of a package are kept, and which need not be fetched again. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cloaca.resources import CloacinaPackage, ConditionStatus
from cloaca.resources.conditions import PackageCondition, find
from cloacina_operator.core.packages import ACCEPTED_KEPT, fetched_message


def kept_archives(package: CloacinaPackage, candidate: str | None, pinned: Iterable[str]) -> frozenset[str]:
    """The digests of a package whose bytes are kept. ``candidate``: what was fetched and is not refused. ``pinned``: by
    runs that have not ended."""
    active = package.status.active
    before = dict.fromkeys(
        entry.digest for entry in package.status.history if entry.accepted and entry.digest is not None
    )
    if active is not None:
        before.pop(active.digest, None)
    named = [None if active is None else active.digest, candidate, *list(before)[: ACCEPTED_KEPT - 1], *pinned]
    return frozenset(digest for digest in named if digest is not None)


def already_fetched(package: CloacinaPackage) -> str | None:
    """The digest that the source gave for the spec as it is, as the status says; None: it is not known, or refused."""
    status, fetched = package.status, find(package.status.conditions, PackageCondition.FETCHED)
    if status.active is None or status.candidate is not None or fetched is None:
        return None
    if package.reconcile_requested_at != status.last_handled_reconcile_at:
        return None
    current = fetched.observed_generation == package.metadata.generation == status.observed_generation
    told = fetched.status is ConditionStatus.TRUE and fetched.message == fetched_message(status.active.digest)
    return status.active.digest if current and told else None
