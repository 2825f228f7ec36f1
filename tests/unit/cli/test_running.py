"""Whether a daemon works on a store that is shared, as its seat tells."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from cloaca.cli.running import holder_of
from cloaca.library.presence import this_process
from cloaca.resources import ObjectMeta
from cloaca.resources.seat import DAEMON, Seat, SeatSpec, SeatStatus

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
HERE = this_process()
WHERE = "process 7 on box, home /h"


def seat(silent: float | None, *, machine: str = "another", started: str = "1") -> Seat:
    spec = SeatSpec(machine=machine, pid=7, started=started, host="box", home="/h")
    at = None if silent is None else NOW - timedelta(seconds=silent)
    return Seat(metadata=ObjectMeta(name=DAEMON), spec=spec, status=SeatStatus(at=at))


@pytest.mark.parametrize(
    ("held", "where", "absence"),
    [
        (None, "", "no daemon works on this store, so nothing is polled"),
        (seat(3), WHERE, ""),
        (seat(None), WHERE, ""),
        (
            seat(300),
            "",
            f"the daemon that worked on this store ({WHERE}) gave its last sign of life 5m ago, so nothing",
        ),
        (seat(3, machine=HERE.machine, started="no such"), "", f"the daemon that worked on this store ({WHERE}) died"),
    ],
    ids=["nobody", "lives", "has just come", "silent elsewhere", "died here"],
)
def test_who_works_on_a_shared_store(held: Seat | None, where: str, absence: str) -> None:
    working = holder_of(held, NOW)
    assert working.where == where
    assert working.absence.startswith(absence)
    assert bool(working.absence) is not bool(where)
