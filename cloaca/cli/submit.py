"""Make the WorkflowRuns that a person asks for, as the poller makes them. Waits for their end if wanted."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from cloaca.cli.follow import follow_run, succeeded, verdict
from cloaca.cli.kinds import full_name
from cloaca.cli.place import Place
from cloaca.cli.terminal import remark, say
from cloaca.errors import AlreadyExists, CloacaError
from cloaca.packages.nearest import did_you_mean
from cloaca.polling.ledger import FiredKeys
from cloaca.polling.tick import is_taken, run_of, second_name
from cloaca.resources import CloacinaPackage, ObjectMeta, RunSpec, Trigger, WorkflowRun, owned_by
from cloaca.resources.conditions import find
from cloaca.resources.names import keyed_run_name, manual_run_name, run_labels
from cloaca.resources.package import ActivePackage
from cloaca.resources.run import TriggerReference
from cloaca.resources.trigger import FireIntent, PackageReference, PendingTick
from cloaca.store import Store


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A run that was asked for."""

    run: WorkflowRun
    created: bool  # False: the same fire made it before


async def fire(store: Store, trigger: Trigger, context: Mapping[str, Any], key: str | None) -> Submitted:
    """A run of ``trigger``, pinned to the active archive. With a key there is one run for it, ever.

    Raises CloacaError where the trigger cannot be fired, or the key fired before and its run is gone.
    """
    package = await store.get(CloacinaPackage, trigger.spec.package_ref.name, trigger.metadata.namespace)
    if package is None:
        raise CloacaError(
            f"trigger {trigger.name!r} cannot be fired: there is no CloacinaPackage {trigger.spec.package_ref.name!r}"
        )
    effective = trigger.status.effective
    if effective is None:
        said = find(trigger.status.conditions, "Ready")
        why = said.message or said.reason if said else "nobody has looked at it yet"
        raise CloacaError(
            f"trigger {trigger.name!r} cannot be fired: {why}; see `cloaca describe ctrig {trigger.name}`"
        )
    unique = secrets.token_hex(8)
    pending = PendingTick(tick=trigger.status.sequence, digest=active_of(package).digest, workflow=effective.workflow)
    intent = FireIntent(
        name=manual_run_name(trigger.name, f"manual-{unique[:8]}")
        if key is None
        else keyed_run_name(trigger.name, trigger.metadata.uid, key),
        fire_id=f"{unique}-by-hand",  # its head makes the second name
        key=key,
        context=dict(context),
    )
    if key is not None:
        await _refuse_a_fired_key(store, trigger, key, intent.name)
    while True:
        try:
            return Submitted(run=await store.create(run_of(trigger, pending, intent, package.spec.runs)), created=True)
        except AlreadyExists:
            existing = await store.get(WorkflowRun, intent.name, trigger.metadata.namespace)
            if existing is None:
                continue  # it went meanwhile
            if not is_taken(existing, trigger, intent):
                return Submitted(run=existing, created=False)
            intent = second_name(trigger, intent)


async def _refuse_a_fired_key(store: Store, trigger: Trigger, key: str, run: str) -> None:
    """Where its run is still there, the run answers for the key itself."""
    namespace = trigger.metadata.namespace
    keys = FiredKeys(store, TriggerReference(name=trigger.name, uid=trigger.metadata.uid), namespace)
    await keys.refresh()
    if key in keys and await store.get(WorkflowRun, run, namespace) is None:
        raise CloacaError(
            f"trigger {trigger.name!r} was not fired: key {key!r} was fired before, by run {run}, which was collected "
            "since; a key fires once, ever: use another key, or none"
        )


async def submit(store: Store, package: CloacinaPackage, workflow: str | None, context: Mapping[str, Any]) -> Submitted:
    """A run of a workflow of the active archive of ``package``, which owns it."""
    active = active_of(package)
    name = chosen_workflow([entry.name for entry in package.status.workflows], workflow, f"package {package.name!r}")
    defaults = package.spec.runs
    run = WorkflowRun(
        metadata=ObjectMeta(
            name=manual_run_name(name, secrets.token_hex(5)),
            namespace=package.metadata.namespace,
            labels=run_labels(package.name, None, name),
            owner_references=(owned_by(package),),
        ),
        spec=RunSpec(
            workflow=name,
            package_ref=PackageReference(name=package.name),
            digest=active.digest,
            context=dict(context),
            backoff_limit=defaults.backoff_limit,
            active_deadline_seconds=defaults.active_deadline_seconds,
            ttl_seconds_after_finished=defaults.ttl_seconds_after_finished,
        ),
    )
    return Submitted(run=await store.create(run), created=True)


def active_of(package: CloacinaPackage) -> ActivePackage:
    """The archive that new runs use. Raises CloacaError where none was accepted yet."""
    if package.status.active is None:
        said = find(package.status.conditions, "Ready")
        why = f"{said.reason}: {said.message}" if said else "nobody has looked at it yet"
        raise CloacaError(f"package {package.name!r} has no accepted archive yet: {why}")
    return package.status.active


def chosen_workflow(known: list[str], wanted: str | None, whose: str) -> str:
    """The workflow that is meant: the one that is named (``-`` and ``_`` are the same), or the only one."""
    if wanted is None:
        if len(known) == 1:
            return known[0]
        listed = ", ".join(sorted(known)) or "none"
        raise CloacaError(f"{whose} has {len(known)} workflows: say which one to run: {listed}")
    if wanted not in known:
        alike = [name for name in known if name.replace("-", "_") == wanted.replace("-", "_")]
        if len(alike) == 1:
            return alike[0]
        hint = did_you_mean(wanted, known) or f"; it has: {', '.join(sorted(known)) or 'none'}"
        raise CloacaError(f"{whose} has no workflow {wanted!r}{hint}")
    return wanted


async def report(store: Store, place: Place, submitted: Submitted, *, wait: bool) -> None:
    """Say what was made, and with ``wait`` how it goes on. Raises typer.Exit where it does not succeed."""
    run = submitted.run
    if submitted.created:
        say(f"{full_name(run.ref)} created")
    else:
        said = f"key {run.spec.key!r} was fired before: deduplicated by run {run.name} ({run.status.phase.value})"
        say(f"{full_name(run.ref)} unchanged: {said}")
    if not run.status.phase.finished and (idle := await place.idle(store)):
        remark(f"note: {idle}")
    if not wait:
        return
    ended = await follow_run(store, run.ref, say)
    say(verdict(ended))
    if not succeeded(ended):
        raise typer.Exit(1)
