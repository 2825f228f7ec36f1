"""Durations as authors write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca.authoring.duration import format_duration, parse_duration
from cloaca.errors import DefinitionError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("1ms", 0.001), ("500ms", 0.5), ("5s", 5), ("10m", 600), ("2h", 7200), ("007s", 7), ("1100ms", 1.1)],
)
def test_a_duration_is_an_integer_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "s", "ms", "5 s", " 5s", "5s ", "5s\n", "-5s", "+5s", "1.5s", "5S", "5sec", "5d", "5ss", "1m30s"),
        *("٥s", "1_0s", "1" * 13 + "s", 5, 5.0, None, b"5s"),
    ],
    ids=repr,
)
def test_anything_else_is_an_error_that_shows_the_accepted_forms(text: Any) -> None:
    with pytest.raises(DefinitionError) as refusal:
        parse_duration(text)

    assert str(refusal.value) == (
        f"{text!r} is not a duration: write an integer and ms, s, m or h, such as 500ms, 5s, 10m, 1h"
    )


@given(st.integers(0, 10**10))
def test_durations_survive_being_written_and_read(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h"]))
def test_the_shortest_spelling_is_written(number: int, unit: str) -> None:
    assert len(format_duration(parse_duration(f"{number}{unit}"))) <= len(f"{number}{unit}")
