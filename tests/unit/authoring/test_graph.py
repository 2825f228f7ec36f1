"""The order of tasks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca.authoring import graph

Graph = dict[str, list[str]]

ANY = st.integers(0, 8).flatmap(
    lambda size: st.fixed_dictionaries(
        {f"t{n}": st.lists(st.sampled_from([f"t{m}" for m in range(size)]), max_size=3) for n in range(size)}
    )
)


@st.composite
def acyclic(draw: Any) -> Graph:
    size = draw(st.integers(0, 10))
    needs = {
        f"t{n}": draw(st.lists(st.sampled_from([f"t{m}" for m in range(n)]), max_size=4)) if n else []
        for n in range(size)
    }
    return {task: needs[task] for task in draw(st.permutations(list(needs)))}


@given(acyclic())
def test_every_task_stands_once_and_after_all_that_it_depends_on(dependencies: Graph) -> None:
    order = graph.topological_order(dependencies)

    assert sorted(order) == sorted(dependencies)
    assert all(order.index(needed) < order.index(task) for task, needs in dependencies.items() for needed in needs)


@given(acyclic())
def test_a_level_is_the_longest_way_from_a_root(dependencies: Graph) -> None:
    def depth(task: str) -> int:
        return max((depth(needed) + 1 for needed in dependencies[task]), default=0)

    assert [set(level) for level in graph.levels(dependencies)] == [
        {task for task in dependencies if depth(task) == number}
        for number in range(max(map(depth, dependencies), default=-1) + 1)
    ]


@given(acyclic())
def test_equal_definitions_have_the_same_order(dependencies: Graph) -> None:
    assert graph.levels(dependencies) == graph.levels(dict(dependencies))
    assert [list(level) for level in graph.levels(dependencies)] == [
        [task for task in dependencies if task in level] for level in graph.levels(dependencies)
    ]


@given(ANY)
def test_a_graph_has_either_a_cycle_or_an_order(dependencies: Graph) -> None:
    cycle = graph.find_cycle(dependencies)
    ordered = graph.topological_order(dependencies)

    assert (cycle is None) == (len(ordered) == len(dependencies))
    if cycle is not None:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(needed in dependencies[task] for task, needed in itertools.pairwise(cycle))


@given(acyclic())
def test_roots_and_leaves_are_the_ends_of_the_graph(dependencies: Graph) -> None:
    dependents = graph.invert(dependencies)

    assert graph.roots(dependencies) == [task for task in dependencies if not dependencies[task]]
    assert graph.leaves(dependencies) == [task for task in dependencies if not dependents[task]]


@pytest.mark.parametrize(
    ("dependencies", "cycle"),
    [
        pytest.param({"a": ["a"]}, "a → a", id="itself"),
        pytest.param({"a": ["b"], "b": ["a"]}, "a → b → a", id="two"),
        pytest.param({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}, "a → b → c → a", id="with a way to it"),
    ],
)
def test_a_cycle_is_shown(dependencies: Graph, cycle: str) -> None:
    found = graph.find_cycle(dependencies)

    assert found is not None
    assert graph.describe_cycle(found) == cycle


def test_a_chain_longer_than_the_recursion_limit_is_no_trouble() -> None:
    chain = {f"t{n}": [f"t{n - 1}"] if n else [] for n in range(20_000)}

    assert graph.find_cycle(chain) is None
    assert graph.topological_order(chain) == list(chain)


def test_unknown_dependencies_are_told_with_who_has_them() -> None:
    assert graph.unknown_dependencies({"a": ["x"], "b": ["a", "y"]}) == [("a", "x"), ("b", "y")]
