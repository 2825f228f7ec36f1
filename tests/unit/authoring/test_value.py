"""Frozen values: what the authoring API uses instead of dataclasses, which cost too much at import."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from cloaca.authoring.value import Value, changed


class Point(Value):
    x: int
    y: int = 0

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")


class Named(Point):
    name: str = "origin"


def test_fields_are_given_by_position_or_name_and_have_defaults() -> None:
    assert (Point(1).x, Point(1).y, Point(1, 2).y, Point(x=1, y=3).y) == (1, 0, 2, 3)
    assert repr(Named(1, name="here")) == "Named(x=1, y=0, name='here')"


def test_values_are_equal_by_type_and_fields() -> None:
    assert Point(1) == Point(1, 0)
    assert hash(Point(1)) == hash(Point(1, 0))
    assert Point(1) != Point(2)
    assert Point(1) != Named(1)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Point(), id="a field is missing"),
        pytest.param(lambda: Point(1, z=1), id="an unknown field"),
        pytest.param(lambda: Point(1, x=1), id="a field twice"),
        pytest.param(lambda: Point(1, 2, 3), id="too many"),
    ],
)
def test_wrong_fields_are_type_errors(make: Any) -> None:
    with pytest.raises(TypeError, match="Point"):
        make()


def test_a_value_is_frozen() -> None:
    point: Any = Point(1)
    with pytest.raises(AttributeError, match="Point is frozen"):
        point.x = 2
    with pytest.raises(AttributeError, match="Point is frozen"):
        del point.x


def test_dataclasses_replace_and_fields_work_on_it() -> None:
    assert dataclasses.replace(Named(1, name="a"), x=5) == Named(5, name="a")
    assert [field.name for field in dataclasses.fields(Named)] == ["x", "y", "name"]
    with pytest.raises(ValueError, match="negative"):
        dataclasses.replace(Point(1), x=-1)


def test_a_changed_copy_is_what_replace_gives() -> None:
    assert changed(Named(1, name="a"), x=5) == dataclasses.replace(Named(1, name="a"), x=5) == Named(5, name="a")
    with pytest.raises(ValueError, match="negative"):
        changed(Point(1), x=-1)
    with pytest.raises(TypeError, match="does not take z"):
        changed(Point(1), z=1)


def test_a_value_can_be_copied_and_pickled() -> None:
    assert copy.deepcopy(Point(1)) == pickle.loads(pickle.dumps(Point(1))) == Point(1)
