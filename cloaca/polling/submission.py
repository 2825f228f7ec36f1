"""Make the run of one fire, exactly once, whoever has its name. Records nothing."""

from __future__ import annotations

from cloaca.errors import AlreadyExists, CloacaError, NotFound, StoreUnavailable
from cloaca.polling import tick
from cloaca.polling.entry import Entry
from cloaca.polling.tick import fired_by
from cloaca.resources.package import RunDefaults
from cloaca.resources.run import WorkflowRun
from cloaca.resources.trigger import FireIntent, PendingTick, Trigger
from cloaca.store.base import Store

_LOOKS = 5  # at a run that a create finds and a read does not


class NamesTaken(CloacaError):
    """Runs of somebody else have both names that a fire may have. It is kept, and tried again."""


class TriggerGone(CloacaError):
    """The Trigger was deleted while its function was called; its fires have nowhere to go, and nobody wants them."""


class Replaced(TriggerGone):
    """Another poller polls the Trigger now: what this one found counts no more than if it had died."""


async def submit(
    store: Store, entry: Entry, pending: PendingTick, fire: FireIntent, defaults: RunDefaults
) -> tuple[str, bool]:
    """The name of the run, and whether it is this fire's: made now, or before by a try whose answer got lost.

    Raises NamesTaken, TriggerGone, and what the store says.
    """
    trigger, first = entry.trigger, fire.name
    for _ in range(_LOOKS):
        run = tick.run_of(trigger, pending, fire, defaults)
        known = run.name in entry.active
        entry.active.add(run.name)  # beforehand: its end may be told before the answer that it was made
        try:
            await store.create(run)
        except AlreadyExists:
            existing = await store.get(WorkflowRun, run.name, run.metadata.namespace)
            if existing is None:
                continue  # deleted in between
            if existing.status.phase.finished or not fired_by(existing, trigger):
                entry.active.discard(run.name)
            if tick.same_fire(existing, trigger, fire):
                return run.name, True
            if not tick.is_taken(existing, trigger, fire):
                return run.name, False
            if fire.name != first:
                raise NamesTaken(f"runs {first} and {fire.name} are somebody else's: delete one of them") from None
            fire = tick.second_name(trigger, fire)
        except NotFound:
            raise TriggerGone(f"{trigger.ref} was deleted") from None
        except CloacaError as error:
            if not known and not isinstance(error, StoreUnavailable):
                entry.active.discard(run.name)  # it is refused, and never made
            raise
        else:
            return run.name, True
    raise StoreUnavailable(f"run {fire.name} is there for a create, and not for a read")


async def has_second_name(store: Store, trigger: Trigger, fire: FireIntent) -> str | None:
    """The second name of ``fire``, where a try before made its run under that: the first one may be free by now."""
    second = tick.second_name(trigger, fire)
    run = await store.get(WorkflowRun, second.name, trigger.metadata.namespace)
    return second.name if run is not None and tick.same_fire(run, trigger, fire) else None
