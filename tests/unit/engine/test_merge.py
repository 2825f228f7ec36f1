"""How contexts flow together."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca.engine.merge import merge

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text("ab", max_size=2)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3),
    max_leaves=6,
)
CONTEXTS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)
OF_ONE_SHAPE = st.fixed_dictionaries(
    {},
    optional={
        "list": st.lists(JSON, max_size=4),
        "scalar": SCALARS,
        "object": st.fixed_dictionaries({}, optional={"list": st.lists(SCALARS, max_size=4), "scalar": SCALARS}),
    },
)
"""Contexts in which one key always holds the same sort of value, as those of one workflow's tasks do."""


@pytest.mark.parametrize(
    ("contexts", "merged"),
    [
        pytest.param([], {}, id="nothing"),
        pytest.param([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}, id="keys of both"),
        pytest.param([{"a": 1}, {"a": 2}], {"a": 2}, id="the later value wins"),
        pytest.param([{"a": 1}, {"a": None}], {"a": None}, id="null is a value"),
        pytest.param([{"a": {"x": 1, "y": 1}}, {"a": {"y": 2}}], {"a": {"x": 1, "y": 2}}, id="objects recursively"),
        pytest.param([{"a": [1, 2]}, {"a": [2, 3]}], {"a": [1, 2, 3]}, id="lists unite"),
        pytest.param([{"a": [1, 1]}, {"a": [1]}], {"a": [1, 1]}, id="what one list repeats it keeps"),
        pytest.param([{"a": [1]}, {"a": [True, 1.0]}], {"a": [1, True]}, id="true is not 1, 1.0 is"),
        pytest.param(
            [{"a": [{"x": 1, "y": 2}, [1]]}, {"a": [{"y": 2, "x": 1}, [1], [True]]}],
            {"a": [{"x": 1, "y": 2}, [1], [True]]},
            id="objects and lists in lists",
        ),
        pytest.param([{"a": [1]}, {"a": {"x": 1}}], {"a": {"x": 1}}, id="another sort of value replaces"),
    ],
)
def test_contexts_merge(contexts: list[dict[str, Any]], merged: dict[str, Any]) -> None:
    assert merge(contexts) == merged


@given(CONTEXTS)
def test_merging_a_context_with_itself_changes_nothing(context: dict[str, Any]) -> None:
    assert merge([context, context]) == merge([context]) == context


@given(OF_ONE_SHAPE, OF_ONE_SHAPE, OF_ONE_SHAPE)
def test_it_does_not_matter_which_neighbours_merge_first(a: Any, b: Any, c: Any) -> None:
    assert merge([merge([a, b]), c]) == merge([a, merge([b, c])]) == merge([a, b, c])


@given(st.lists(CONTEXTS, max_size=4))
def test_the_same_contexts_merge_to_the_same_text(contexts: list[dict[str, Any]]) -> None:
    assert repr(merge(contexts)) == repr(merge(copy.deepcopy(contexts)))


@given(st.lists(CONTEXTS, max_size=3))
def test_what_went_in_is_neither_changed_nor_shared(contexts: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(contexts)
    _spoil(merge(contexts))
    assert contexts == before


def _spoil(value: Any) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _spoil(item)
        value["spoiled"] = True
    elif isinstance(value, list):
        for item in value:
            _spoil(item)
        value.append("spoiled")
