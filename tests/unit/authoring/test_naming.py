"""Names that nothing may have: empty, unprintable, too long, or with what separates names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import cloaca
from cloaca.errors import DefinitionError


def a_workflow(name: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="only")(lambda context: None)


def a_tenant(name: Any) -> None:
    cloaca.WorkflowBuilder("w", tenant=name)


def a_constructor(name: Any) -> None:
    cloaca.register_workflow_constructor(name, lambda: pytest.fail("not called for a name that cannot be"))


def a_task(name: Any) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id=name)(lambda context: None)


def a_trigger(name: Any) -> None:
    cloaca.trigger(name=name)(cloaca.TriggerResult.skip)


def a_trigger_of_a_workflow(name: Any) -> None:
    cloaca.trigger(workflow=name, name="t")(cloaca.TriggerResult.skip)


@pytest.mark.parametrize(
    "define",
    [a_workflow, a_tenant, a_constructor, a_task, a_trigger, a_trigger_of_a_workflow],
    ids=lambda it: it.__name__,
)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("", "is a text that is not empty, not ''", id="empty"),
        pytest.param(" \t", "is a text that is not empty", id="blank"),
        pytest.param(7, "is a text that is not empty, not 7", id="no text"),
        pytest.param("a\0b", "all of them printable: 'a\\x00b'", id="NUL"),
        pytest.param("a\nb", "all of them printable", id="line break"),
        pytest.param("\ud800", "all of them printable", id="half a character"),
        pytest.param("a" * 254, "has at most 253 characters", id="too long"),
        pytest.param(" a", "neither begins nor ends with a space: write 'a', not ' a'", id="space before"),
        pytest.param("a::b", "cannot contain '::', which separates tenant, package, workflow and task", id="reserved"),
    ],
)
def test_a_name_that_cannot_be_is_refused_where_it_is_given(define: Callable[[Any], None], name: Any, why: str) -> None:
    with pytest.raises(DefinitionError) as refusal:
        define(name)
    assert why in str(refusal.value)


@pytest.mark.parametrize("name", ["load", "Laden", "größe", "日本", "a b", "a/b", "a:b", ".", "a" * 253])
def test_any_other_name_may_be(name: str) -> None:
    for define in (a_workflow, a_task, a_trigger, a_trigger_of_a_workflow):
        define(name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda b: b.description(3), "its description is a text, not 3", id="description"),
        pytest.param(lambda b: b.tag("", "x"), "a tag is a key and a value, both texts, not '': 'x'", id="tag's key"),
        pytest.param(lambda b: b.tag("a", None), "a tag is a key and a value, both texts, not 'a': None", id="tag"),
    ],
)
def test_what_a_builder_is_told_is_text(call: Callable[[cloaca.WorkflowBuilder], None], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        call(cloaca.WorkflowBuilder("w"))
