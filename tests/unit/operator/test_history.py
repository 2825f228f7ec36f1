"""Which finished runs go, and which stay although the limits say otherwise."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from cloacina_operator.core.history import FinishedRun, to_collect

from cloaca.resources import ObjectMeta, RunPhase, Trigger, TriggerSpec
from cloaca.resources.trigger import FireIntent, PackageReference, PendingTick, TriggerStatus

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
DONE, FAILED = RunPhase.COMPLETED, RunPhase.FAILED


def trigger(*, sequence: int = 100, pending: PendingTick | None = None, completed: int = 3, failed: int = 1) -> Trigger:
    return Trigger(
        metadata=ObjectMeta(name="t", uid="u"),
        spec=TriggerSpec(
            package_ref=PackageReference(name="p"),
            name="f",
            successful_runs_history_limit=completed,
            failed_runs_history_limit=failed,
        ),
        status=TriggerStatus(sequence=sequence, pending=pending),
    )


def run(number: int, phase: RunPhase = DONE, *, ttl: int | None = None, key: str | None = None) -> FinishedRun:
    return FinishedRun(
        name=f"t-{number}",
        uid=f"uid-{number}",
        phase=phase,
        finished_at=NOW - timedelta(minutes=100 - number),
        ttl=None if ttl is None else timedelta(seconds=ttl),
        key=key,
        fire_id=f"fire-{number}",
    )


def pending(*numbers: int) -> PendingTick:
    fires = tuple(FireIntent(name=f"t-{number}", fire_id=f"fire-{number}") for number in numbers)
    return PendingTick(tick=9, digest="sha256:0", workflow="w", fires=fires)


@pytest.mark.parametrize(
    ("of", "finished", "names", "after"),
    [
        pytest.param(trigger(), [], [], None, id="nothing"),
        pytest.param(trigger(), [run(n) for n in (3, 1, 2)], [], None, id="as many as may stay"),
        pytest.param(trigger(), [run(n) for n in (5, 3, 1, 4, 2)], ["t-1", "t-2"], None, id="the oldest go, in order"),
        pytest.param(
            trigger(),
            [run(1, FAILED), run(2, RunPhase.CANCELLED), run(3), run(4), run(5)],
            ["t-1"],
            None,
            id="failed and cancelled ones count together, and apart from completed ones",
        ),
        pytest.param(
            trigger(),
            [run(n, RunPhase.DEDUPLICATED) for n in (1, 2)] + [run(3, FAILED)],
            ["t-1"],
            None,
            id="repetitions push out nothing but each other",
        ),
        pytest.param(trigger(completed=0), [run(1)], ["t-1"], None, id="none are to stay"),
        pytest.param(
            trigger(completed=0, pending=pending(1, 2)),
            [run(1), run(2), run(3)],
            ["t-3"],
            None,
            id="a tick that is not committed may make its runs again, so they stay",
        ),
        pytest.param(
            trigger(completed=0, sequence=1), [run(1), run(2)], ["t-1"], None, id="nor one recorded by its run alone"
        ),
        pytest.param(
            trigger(completed=0, sequence=1), [run(2, key="k")], ["t-2"], None, id="of a key the ledger knows the rest"
        ),
        pytest.param(trigger(), [run(90, ttl=600)], ["t-90"], None, id="its time is over to the second"),
        pytest.param(
            trigger(),
            [run(90, ttl=601), run(99, ttl=120)],
            [],
            timedelta(seconds=1),
            id="its time is not over: look again when the first one is",
        ),
    ],
)
def test_what_is_collected(of: Trigger, finished: list[FinishedRun], names: list[str], after: timedelta | None) -> None:
    due, again = to_collect(of, finished, NOW)
    assert ([one.name for one in due], again) == (names, after)
