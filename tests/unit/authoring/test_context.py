"""Context: what it holds, what it refuses, and that nobody changes it from outside."""

from __future__ import annotations

import collections
import enum
import json
import math
import types
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca import Context
from cloaca.errors import CloacaError, ContextError, ContextKeyError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


class Colour(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def test_a_context_starts_empty_or_with_what_it_is_given() -> None:
    assert Context().to_dict() == {}
    assert Context({"a": 1}).to_dict() == {"a": 1}
    assert Context(Context({"a": 1})) == Context({"a": 1})


def test_get_gives_the_value_or_the_default() -> None:
    context = Context({"a": None})

    assert (context.get("a", 1), context.get("b"), context.get("b", 2)) == (None, None, 2)


def test_set_adds_and_replaces() -> None:
    context = Context({"a": 1})
    context.set("a", 2)
    context["b"] = 3

    assert context.to_dict() == {"a": 2, "b": 3}


def test_insert_only_adds() -> None:
    context = Context()
    context.insert("a", 1)
    with pytest.raises(ValueError, match="context key 'a' already exists"):
        context.insert("a", 2)

    assert context["a"] == 1


def test_update_only_changes() -> None:
    context = Context({"a": 1})
    context.update("a", 2)
    with pytest.raises(KeyError, match="context has no key 'b'"):
        context.update("b", 2)

    assert context.to_dict() == {"a": 2}


def test_remove_gives_the_value_or_none() -> None:
    context = Context({"a": 1})

    assert (context.remove("a"), context.remove("a"), len(context)) == (1, None, 0)


def test_subscripts_and_del_raise_key_errors_that_name_the_key() -> None:
    context = Context()
    with pytest.raises(ContextKeyError) as read:
        context["rows"]
    with pytest.raises(KeyError) as deleted:
        del context["rows"]

    assert str(read.value) == str(deleted.value) == "context has no key 'rows'"


def test_in_len_iteration_and_equality_are_those_of_a_dict() -> None:
    context = Context({"a": 1, "b": 2})

    assert ("a" in context, "c" in context, len(context), list(context)) == (True, False, 2, ["a", "b"])
    assert context == Context({"b": 2, "a": 1})
    assert context != Context({"a": 1})
    assert context != {"a": 1, "b": 2}


def test_repr_names_context() -> None:
    assert repr(Context({"a": 1})) == "Context({'a': 1})"


def test_update_from_dict_sets_all_keys_or_none() -> None:
    context = Context({"a": 1})
    context.update_from_dict({"a": 2, "b": 3})
    with pytest.raises(ContextError):
        context.update_from_dict({"c": 4, "bad": object()})

    assert context.to_dict() == {"a": 2, "b": 3}


def test_what_was_given_and_what_is_read_as_a_dict_are_copies() -> None:
    given = {"rows": [1]}
    context = Context(given)
    given["rows"].append(2)
    context.to_dict()["rows"].append(3)

    assert context["rows"] == [1]


@given(st.dictionaries(st.text(), JSON))
def test_a_context_survives_json(data: dict[str, Any]) -> None:
    context = Context(data)

    assert Context.from_json(context.to_json()) == context
    assert json.loads(context.to_json()) == data == context.to_dict()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        pytest.param((1, [2, (3,)]), [1, [2, [3]]], id="tuple"),
        pytest.param(Colour.RED, "red", id="str enum"),
        pytest.param(Level.HIGH, 3, id="int enum"),
        pytest.param(collections.OrderedDict(a=1), {"a": 1}, id="OrderedDict"),
        pytest.param(types.MappingProxyType({"a": 1}), {"a": 1}, id="mapping"),
        pytest.param(Context({"a": 1}), {"a": 1}, id="context"),
        pytest.param(2**70, 2**70, id="large integer"),
        pytest.param("✓ \x00", "✓ \x00", id="any text"),
    ],
)
def test_what_json_can_hold_is_kept_as_plain_values(value: Any, kept: Any) -> None:
    found = Context({"value": value})["value"]

    assert (found, type(found)) == (kept, type(kept))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


ITSELF: list[Any] = []
ITSELF.append(ITSELF)
CANNOT = "which JSON cannot hold: store text, numbers, booleans, None, lists or dicts of those"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(object(), f"context value 'k' is of type builtins.object, {CANNOT}", id="object"),
        pytest.param(b"x", f"context value 'k' is of type builtins.bytes, {CANNOT}", id="bytes"),
        pytest.param({1}, f"context value 'k' is of type builtins.set, {CANNOT}", id="set"),
        pytest.param(Decimal(1), f"context value 'k' is of type decimal.Decimal, {CANNOT}", id="Decimal"),
        pytest.param(datetime(2026, 1, 1), f"context value 'k' is of type datetime.datetime, {CANNOT}", id="datetime"),
        pytest.param(
            {"a": [1, {2}]}, f"context value 'k'['a'][1] is of type builtins.set, {CANNOT}", id="somewhere inside"
        ),
        pytest.param(math.nan, "context value 'k' is nan: JSON has no such number; use None or a string", id="NaN"),
        pytest.param(
            [-math.inf], "context value 'k'[0] is -inf: JSON has no such number; use None or a string", id="infinity"
        ),
        pytest.param(
            {1: 2}, "context value 'k' has the key 1 of type int: JSON keys are strings", id="a key that is no string"
        ),
        pytest.param(
            "\ud800",
            "context value 'k' holds a lone surrogate, which is no valid text: decode it first",
            id="surrogate",
        ),
        pytest.param(
            10**4001,
            "context value 'k' is an integer of more than 4000 digits: store it as a string",
            id="integer without end",
        ),
        pytest.param(nested(101), f"context value 'k'{'[0]' * 100} is nested deeper than 100 levels", id="too deep"),
        pytest.param(ITSELF, f"context value 'k'{'[0]' * 100} is nested deeper than 100 levels", id="contains itself"),
    ],
)
def test_anything_else_is_refused_when_it_is_set(value: Any, message: str) -> None:
    context = Context()
    with pytest.raises(ContextError) as refusal:
        context.set("k", value)

    assert str(refusal.value).removesuffix(" (or contains itself)") == message
    assert len(context) == 0


@pytest.mark.parametrize("key", [1, None, b"k", ("a",)], ids=repr)
def test_a_key_that_is_no_string_is_refused(key: Any) -> None:
    with pytest.raises(ContextError, match="JSON keys are strings"):
        Context().set(key, 1)


@pytest.mark.parametrize("data", [[("a", 1)], "a", 1], ids=repr)
def test_a_context_is_made_from_a_dict_only(data: Any) -> None:
    with pytest.raises(ContextError, match="a context is made from a dict, not from"):
        Context(data)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"a": NaN}', "[" * 100_000, None], ids=lambda t: repr(t)[:9])
def test_from_json_refuses_what_is_no_json_object(text: Any) -> None:
    with pytest.raises(ContextError):
        Context.from_json(text)


def test_to_json_refuses_what_was_smuggled_in() -> None:
    context = Context({"rows": []})
    context["rows"].append({1, 2})
    with pytest.raises(ContextError, match=r"context\['rows'\]\[0\] is of type builtins.set"):
        context.to_json()


def test_its_errors_are_both_ours_and_pythons() -> None:
    assert issubclass(ContextError, (CloacaError, ValueError))
    assert issubclass(ContextKeyError, (CloacaError, KeyError))
