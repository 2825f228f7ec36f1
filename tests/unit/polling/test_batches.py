"""An answer with more fires than one object can hold: split where keys make that safe, refused with a sentence else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca.polling.messages import Fire
from cloaca.polling.tick import INTENT_LIMIT, AnswerTooLarge, batches


def fires(sizes: list[int], *, keyed: bool) -> list[Fire]:
    return [Fire(context={"x": "y" * size}, key=str(number) if keyed else None) for number, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 250_000), max_size=12))
def test_every_fire_is_in_one_part_in_order_and_no_part_is_too_large(sizes: list[int]) -> None:
    given_ = fires(sizes, keyed=True)
    parts = batches(given_)
    assert [fire for part in parts for fire in part] == given_
    assert all(sum(len(json.dumps(fire.context)) for fire in part) <= INTENT_LIMIT for part in parts)


@pytest.mark.parametrize(
    ("sizes", "parts"), [([], 1), ([9], 1), ([9] * 1_000, 1), ([200_000] * 5, 3), ([1] * 10_000, 5)]
)
def test_as_few_parts_as_can_be(sizes: list[int], parts: int) -> None:
    assert len(batches(fires(sizes, keyed=True))) == parts


def test_fires_without_keys_are_not_split() -> None:
    assert len(batches(fires([200_000] * 2, keyed=False))) == 1
    with pytest.raises(AnswerTooLarge, match=r"has 3 fires of 6\d\d,\d{3} bytes .*: give each of them a key, or yield"):
        batches(fires([200_000] * 3, keyed=False))
