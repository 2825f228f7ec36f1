"""The harness is worth something only if it can fail: each way of breaking the code is caught by it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cloacina_operator.core import clock, runs
from cloacina_operator.shell import gather
from cloacina_operator.shell.ledgers import Ledgers
from faults import backends, world
from faults.store import Fault, Point
from faults.sweep import visit
from faults.world import Case

from cloaca.engine.journal import StoreJournal
from cloaca.errors import RunLost
from cloaca.polling import tick
from cloaca.polling.poller import Poller
from cloaca.polling.recorder import Recorder
from cloaca.polling.workers import _Link

Mutate = Callable[[pytest.MonkeyPatch], None]


def no_intent(patch: pytest.MonkeyPatch) -> None:
    """Fires are made without a record of them."""
    patch.setattr(tick, "needs_record", lambda _: False)


def fire_id_ignored(patch: pytest.MonkeyPatch) -> None:
    """A run that exists is taken for somebody else's, though it is this fire's: it is made again."""
    patch.setattr(tick, "same_fire", lambda *_: False)
    patch.setattr(tick, "is_taken", lambda *_: True)
    patch.setattr(
        tick, "second_name", lambda trigger, fire: fire.model_copy(update={"name": f"other-{uuid.uuid4().hex[:12]}"})
    )


def ack_at_once(patch: pytest.MonkeyPatch) -> None:
    """A generator goes on before its fire is durable."""
    real = _Link._publish

    async def publish(self: Any, request_id: int, call: Any, answer: Any) -> None:
        from cloaca.polling.messages import ack_line

        self._say(ack_line(request_id))
        await real(self, request_id, call, answer)

    patch.setattr(_Link, "_publish", publish)


def state_not_kept(patch: pytest.MonkeyPatch) -> None:
    """The state is never saved."""
    real = tick.committed
    patch.setattr(
        tick,
        "committed",
        lambda status, pending, **rest: real(status, pending.model_copy(update={"state": None}), **rest),
    )


def finished_tasks_forgotten(patch: pytest.MonkeyPatch) -> None:
    """The next attempt starts from the beginning."""
    from cloaca.engine.progress import Progress

    patch.setattr(Progress, "_restore", lambda *_: None)


def forbid_ignored(patch: pytest.MonkeyPatch) -> None:
    """Runs of one trigger are started side by side."""
    rules = tuple(rule for rule in runs.RULES if rule is not runs.waiting_for_run)
    patch.setattr(runs, "RULES", rules)


def policy_forgotten(patch: pytest.MonkeyPatch) -> None:
    """While a trigger has no settings its runs may overlap."""
    real = runs.policy_of
    patch.setattr(
        gather,
        "policy_of",
        lambda run, trigger: None if trigger is None or trigger.status.effective is None else real(run, trigger),
    )


def watch_not_caught_up(patch: pytest.MonkeyPatch) -> None:
    """What ended while nobody followed is believed to run on."""
    patch.setattr(Poller, "_unblock", lambda *_: None)


def store_away_drops_fires(patch: pytest.MonkeyPatch) -> None:
    """A fire is tried once."""

    async def once(_: Any, call: Any) -> Any:
        return await call()

    patch.setattr(Recorder, "_persistently", once)


def context_lost(patch: pytest.MonkeyPatch) -> None:
    """The run gets another context than was fired."""
    real = tick.run_of
    patch.setattr(
        tick, "run_of", lambda *given: (run := real(*given)).with_spec(context={**run.spec.context, "payload": "?"})
    )


def fence_skipped(patch: pytest.MonkeyPatch) -> None:
    """A process that was taken for dead writes over what its successor recorded."""
    real = StoreJournal._is_there

    def is_there(self: Any, status: Any) -> bool:
        try:
            return real(self, status)
        except RunLost:
            self._see(self._store.run_here(self._run.name, self._run.namespace))
            return False

    patch.setattr(StoreJournal, "_is_there", is_there)


def clock_never_set_back(patch: pytest.MonkeyPatch) -> None:
    """A schedule waits until a clock that was set back is again where it was."""
    patch.setattr(clock, "SET_BACK", timedelta.max)


def ledger_not_kept(patch: pytest.MonkeyPatch) -> None:
    """Finished runs go, and their keys with them."""

    async def enter(*_: Any) -> None:
        return None

    patch.setattr(Ledgers, "enter", enter)


def replaced_poller_goes_on(patch: pytest.MonkeyPatch) -> None:
    """A poller that was taken for dead polls beside the one that took its place."""
    patch.setattr(tick, "is_replaced", lambda *_: False)


MUTANTS: tuple[tuple[Mutate, str], ...] = (
    (no_intent, "state"),
    (fire_id_ignored, "unkeyed"),
    (ack_at_once, "generator"),
    (state_not_kept, "state"),
    (finished_tasks_forgotten, "unkeyed"),
    (forbid_ignored, "forbid"),
    (policy_forgotten, "forbid-unfit"),
    (watch_not_caught_up, "forbid"),
    (store_away_drops_fires, "unkeyed"),
    (context_lost, "keyed"),
    (fence_skipped, "unkeyed"),
    (clock_never_set_back, "clock-schedule"),
    (ledger_not_kept, "history"),
    (replaced_poller_goes_on, "state"),
)
STRIKES = (Fault.CRASH_AFTER, Fault.ANSWER_LOST, Fault.AWAY, Fault.GIVEN_UP)
PLACES = (
    ("create", "WorkflowRun", "poller"),
    ("write_status", "Trigger", "poller"),
    ("write_status", "WorkflowRun", "run"),
)


@pytest.mark.parametrize(("mutate", "scenario"), MUTANTS, ids=[mutate.__name__ for mutate, _ in MUTANTS])
def test_the_harness_catches(mutate: Mutate, scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert noticed(mutate, scenario, "memory", monkeypatch), mutate.__doc__


@pytest.mark.parametrize("on", ["file", "postgres"])
@pytest.mark.parametrize(("mutate", "scenario"), [(no_intent, "state"), (finished_tasks_forgotten, "unkeyed")])
def test_it_does_so_on_other_stores(mutate: Mutate, scenario: str, on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if why := backends.missing(on):
        pytest.skip(why)
    assert noticed(mutate, scenario, on, monkeypatch), mutate.__doc__


def noticed(mutate: Mutate, scenario: str, on: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    targets = [Point(component, call, kind, number) for number in (1, 2) for call, kind, component in PLACES]
    faults = [((point, fault),) for point in targets for fault in STRIKES if fault in point.faults]
    with monkeypatch.context() as patch:
        mutate(patch)
        patch.setattr(world, "PATIENCE", 60.0)  # what stands still or never ends is seen soon enough
        return any(visit(Case(scenario=scenario, on=on, planned=planned)).broken for planned in faults)
