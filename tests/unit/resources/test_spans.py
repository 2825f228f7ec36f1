"""Durations in specs are Go's, and authors' durations are among them."""

from __future__ import annotations

import pytest

from cloaca.errors import DefinitionError
from cloaca.resources.spans import parse_span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400.0), ("1.5h", 5400.0), ("0s", 0.0), ("500ms", 0.5), ("250us", 0.00025), ("999999h", 3599996400.0)],
)
def test_a_span_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert parse_span(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "1 h", "-1s", "1d", "h", "1.s", ".5s", "9999999h", "1s" * 40, "١s"])
def test_anything_else_shows_what_to_write(text: str) -> None:
    with pytest.raises(DefinitionError, match="1h30m"):
        parse_span(text)
