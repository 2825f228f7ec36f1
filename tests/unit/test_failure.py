"""What user code raises is described in plain text of bounded size, whatever the exception does."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import hostile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca.errors import ContextError, TaskResultError
from cloaca.failure import (
    MESSAGE_LIMIT,
    TRACEBACK_LIMIT,
    Failure,
    FailureKind,
    class_name,
    failure_of,
    full_class_name,
    function_name,
    last_lines,
    one_line,
    plain_text,
    shown,
)


def raised(error: BaseException) -> Failure:
    """Its description, as whoever calls user code gets it."""
    try:
        raise error
    except BaseException as caught:
        return failure_of(caught)


def is_plain(text: str) -> bool:
    """Whether every store takes it, and no terminal obeys it."""
    text.encode()
    return type(text) is str and all(
        char in "\n\t" or (ord(char) >= 32 and not 127 <= ord(char) < 160) for char in text
    )


def check(failure: Failure) -> None:
    assert is_plain(failure.message)
    assert is_plain(failure.text)
    assert 0 < len(failure.message) <= MESSAGE_LIMIT
    assert failure.traceback is not None
    assert is_plain(failure.traceback)
    assert len(failure.traceback) <= TRACEBACK_LIMIT
    json.dumps(failure._asdict())


@pytest.mark.parametrize("kind", hostile.EXCEPTIONS)
def test_every_exception_has_a_description(kind: str) -> None:
    error = hostile.EXCEPTIONS[kind]()
    failure = raised(error)

    check(failure)
    assert failure.message.startswith(type.__dict__["__name__"].__get__(type(error)))
    assert failure.traceback is not None
    assert "raise error" in failure.traceback


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValueError("no inbox"), "ValueError: no inbox"),
        (ValueError, "ValueError"),
        (hostile.StrRaises, "StrRaises: its __str__ raised AttributeError"),
        (lambda: hostile.BadArguments(5), "BadArguments: its __str__ raised ValueError for the arguments (5,)"),
        (hostile.StrIsNoString, "StrIsNoString: its __str__ raised TypeError"),
        (hostile.StrIsOdd, "StrIsOdd: odd"),
        (lambda: hostile.Nameless(), "Nameless"),
        (lambda: SystemExit(3), "SystemExit: 3"),
        (lambda: OSError("caf\udce9.csv\x00"), "OSError: caf\\udce9.csv\\x00"),
        (lambda: ValueError("one\r\ntwo\x1b[0m"), "ValueError: one\ntwo\\x1b[0m"),
    ],
)
def test_the_message_says_class_and_text(make: Callable[[], BaseException], message: str) -> None:
    assert raised(make()).message == message


def test_a_large_message_shows_its_start_and_its_end() -> None:
    failure = raised(ValueError("the start" + "x" * hostile.LARGE + "the end"))

    assert failure.message.startswith("ValueError: the start")
    assert " … (5,000,028 characters in all) … " in failure.message
    assert failure.message.endswith("the end")
    assert failure.traceback is not None
    assert "raise error" in failure.traceback
    assert failure.traceback.endswith("the end\n")


def test_the_traceback_is_the_interpreters_own() -> None:
    def load() -> None:
        try:
            {}["amount"]
        except KeyError as error:
            raise ValueError("no such column") from error

    with pytest.raises(ValueError) as caught:
        load()
    assert failure_of(caught.value).traceback == "".join(traceback.format_exception(caught.value))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_the_members_of_a_group_are_shown() -> None:
    shown_traceback = raised(hostile.EXCEPTIONS["a group"]()).traceback or ""

    assert "OSError: second" in shown_traceback
    assert "StrRaises: <exception str() failed>" in shown_traceback


def test_an_endless_recursion_is_described_by_its_last_frames() -> None:
    def down() -> None:
        down()

    with pytest.raises(RecursionError) as caught:
        down()
    failure = failure_of(caught.value)

    check(failure)
    assert failure.message.startswith("RecursionError: maximum recursion depth exceeded")
    assert "in down" in (failure.traceback or "")


def test_code_whose_globals_are_odd_has_its_traceback() -> None:
    try:
        exec("raise ValueError('odd')", {"__name__": 5})
    except ValueError as error:
        check(failure_of(error))


def test_an_exception_that_was_never_raised_has_no_traceback() -> None:
    assert failure_of(ValueError("x")) == Failure("ValueError: x", None, FailureKind.ORDINARY, "ValueError: x")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError(), FailureKind.ORDINARY),
        (ConnectionResetError(), FailureKind.TRANSIENT),
        (TimeoutError(), FailureKind.TRANSIENT),
        (ContextError("x"), FailureKind.UNKEEPABLE),
        (TaskResultError("x"), FailureKind.UNKEEPABLE),
    ],
)
def test_the_class_decides_what_another_try_is_worth(error: BaseException, kind: FailureKind) -> None:
    assert failure_of(error).kind is kind


ANY_TEXT = st.text(st.characters(), max_size=300)


def _class(name: str, attributes: dict[str, Any], base: type[BaseException]) -> type[BaseException]:
    made: type[BaseException] = type(name, (base,), attributes)
    return made


def _misbehave(what: Any) -> Callable[..., Any]:
    def method(*_: Any, **__: Any) -> Any:
        if isinstance(what, BaseException):
            raise what
        return what

    return method


BEHAVIOURS = st.one_of(
    st.none(), st.integers(), ANY_TEXT, ANY_TEXT.map(hostile.OddString), st.builds(ValueError, ANY_TEXT),
    st.builds(hostile.StrRaises), st.builds(SystemExit), st.builds(KeyboardInterrupt), st.builds(GeneratorExit),
    st.builds(RecursionError), st.lists(ANY_TEXT, max_size=3),
).map(_misbehave)  # fmt: skip
METHODS = ("__str__", "__repr__", "__getattribute__", "__eq__", "__hash__", "__bool__", "__dir__", "__format__")
PROPERTIES = (
    "__class__", "__traceback__", "__cause__", "__context__", "__suppress_context__", "__notes__", "__dict__", "args",
    "exceptions", "filename", "lineno", "text", "msg", "name", "code", "errno",
)  # fmt: skip
BASES = st.sampled_from([Exception, BaseException, OSError, SyntaxError, SystemExit, KeyError, ImportError, NameError])
CLASSES = st.builds(
    _class,
    st.from_regex(r"[A-Za-z_]\w{0,20}", fullmatch=True),
    st.builds(
        lambda methods, properties: {**methods, **{name: property(get) for name, get in properties.items()}},
        st.dictionaries(st.sampled_from(METHODS), BEHAVIOURS, max_size=4),
        st.dictionaries(st.sampled_from(PROPERTIES), BEHAVIOURS, max_size=4),
    ),
    BASES,
)


@given(CLASSES, st.lists(st.one_of(ANY_TEXT, st.integers(), st.none()), max_size=6))
def test_no_class_of_exceptions_keeps_itself_from_being_described(of: type[BaseException], arguments: Any) -> None:
    try:
        error = of(*(hostile.NamelessValue() if one is None else one for one in arguments))
    except BaseException:
        error = of()
    check(raised(error))


@given(ANY_TEXT, st.integers(100, 400))
def test_plain_text_is_plain_and_no_longer_than_its_limit(text: str, limit: int) -> None:
    plain = plain_text(text, limit)

    assert is_plain(plain)
    assert len(plain) <= limit
    if is_plain_text(text) and len(text) <= limit:
        assert plain == text
    assert "\n" not in one_line(text, limit)


def is_plain_text(text: str) -> bool:
    try:
        return is_plain(text)
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("one\ntwo\n", 8, "one\ntwo\n"),
        ("one\ntwo\nthree", 9, "…\nthree"),
        ("one line that is long", 10, "…\n is long"),
    ],
    ids=["short", "whole lines", "one line"],
)
def test_last_lines_are_whole_where_they_can_be(text: str, limit: int, kept: str) -> None:
    assert last_lines(text, limit) == kept
    assert len(last_lines(text, limit)) <= limit


@pytest.mark.parametrize("kind", hostile.VALUES)
def test_every_value_can_be_named_and_shown(kind: str) -> None:
    value = hostile.VALUES[kind]()

    for text in (shown(value), class_name(value), full_class_name(value), function_name(value)):
        assert is_plain(text)
        assert 0 < len(text) <= 450
