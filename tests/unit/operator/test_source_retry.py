"""When a source that failed is asked again."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from cloacina_operator.core.packages import FetchFailed, ObservedPackage, plan
from cloacina_operator.core.plan import Fetch

from cloaca.resources import CloacinaPackage, ObjectMeta, PackageSpec
from cloaca.resources.conditions import PackageReason
from cloaca.resources.package import PackageSource

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("left", "actions", "again"),
    [
        pytest.param(5, (), timedelta(seconds=5), id="not yet: wait"),
        pytest.param(0, (Fetch(),), None, id="now: the end of the fetch has us look again, and nothing before"),
        pytest.param(-60, (Fetch(),), None, id="overdue: the same"),
    ],
)
def test_a_failed_source_is_asked_again_when_it_is_time(
    left: int, actions: tuple[Fetch, ...], again: timedelta | None
) -> None:
    package = CloacinaPackage(
        metadata=ObjectMeta(name="demo", uid="u"),
        spec=PackageSpec(source=PackageSource(url="https://example.com/demo.cloacina")),
    )
    failed = FetchFailed(reason=PackageReason.FETCH_FAILED, message="away", retry_at=NOW + timedelta(seconds=left))
    decided = plan(
        ObservedPackage(package=package, fetch=failed, verdict=None, polled=frozenset(), poller=None, now=NOW)
    )
    assert (decided.actions, decided.requeue_after) == (actions, again)
