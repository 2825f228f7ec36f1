"""How long a package waits for its poller to be started again."""

from __future__ import annotations

import pytest
from cloacina_operator.executors.children import POLLED_WELL, in_a_row


@pytest.mark.parametrize(
    ("failures", "polled", "after"),
    [
        pytest.param(0, None, 1, id="the first"),
        pytest.param(3, None, 4, id="it could not be started"),
        pytest.param(3, 0.5, 4, id="it was started, and ended soon"),
        pytest.param(3, POLLED_WELL, 1, id="it polled well for long: a new row"),
    ],
)
def test_failures_in_a_row(failures: int, polled: float | None, after: int) -> None:
    assert in_a_row(failures, polled) == after
