"""Describe what user code raised, as plain text of bounded size. Never fails, whatever the object does; does no I/O
but for the source lines of a traceback.

Classes of user code may do anything: a ``__str__`` that raises, a metaclass without a name, a cause that is its own
cause. Nothing here asks such an object for what the interpreter knows by itself, and whatever it does when it is asked
is part of the description. Call it where the user code was called, within its time limit: it may also never answer.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import NamedTuple

from cloaca.errors import ContextError, TaskResultError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from traceback import StackSummary
    from types import TracebackType
    from typing import Any

    IsMachinery = Callable[[str], bool]

MESSAGE_LIMIT = 4_096  # characters of a message
TRACEBACK_LIMIT = 16_384  # characters of a traceback
_TEXT_LIMIT = 65_536  # characters in which a retry condition looks for its words
_CHUNK_LIMIT = 2_000  # characters of one frame, message or note in a traceback
_HEAD_LIMIT = TRACEBACK_LIMIT // 4  # characters of the start that a long traceback keeps
_CHUNKS = 5_000  # frames, messages and notes that are looked at
_FRAMES = 100  # the innermost ones of each exception
_LINKS = 200  # causes, contexts and members of groups; with more, only the exception itself is formatted

_INDESCRIBABLE = "an exception that cannot be described"
_ESCAPES = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160)) if chr(number) not in "\n\t"}


class FailureKind(str, Enum):
    """What the class of an exception says about another try."""

    ORDINARY = "Ordinary"
    TRANSIENT = "Transient"
    """A connection or a time-out: another try may succeed."""
    UNKEEPABLE = "Unkeepable"
    """What the function returned cannot be kept: no other try makes that better."""


class Failure(NamedTuple):
    """An exception in plain text: no lone surrogates, no control characters but newlines and tabs."""

    message: str
    """``ValueError: no such column``; just the name of the class where there is no text. Up to ``MESSAGE_LIMIT``."""
    traceback: str | None = None
    """From the first frame of user code on, up to ``TRACEBACK_LIMIT``; None: neither it nor its cause has one."""
    kind: FailureKind = FailureKind.ORDINARY
    text: str = ""
    """``ValueError: no such column``, with more of a long text than ``message`` has: what retry conditions look at."""


def failure_of(error: BaseException, is_machinery: IsMachinery | None = None) -> Failure:
    """What ``error`` is. Never raises.

    ``is_machinery`` says of the name of a file whether its frames are left out of the traceback; None: ours are, as far
    as they come before the first one of user code.
    """
    try:
        return _failure_of(error, is_machinery or _nothing)
    except BaseException:  # noqa: BLE001  # out of memory, or worse: there is still an error to tell of
        return Failure(_INDESCRIBABLE, text=_INDESCRIBABLE)


def plain_text(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters (100 or more): its start and its end, where it is longer.

    Control characters other than newlines and tabs, and lone surrogates, are written as escapes: every store takes the
    result, and no terminal obeys it.

    >>> plain_text("caf\\udce9\\x00", 100)
    'caf\\\\udce9\\\\x00'
    """
    exact = str.__str__(text)
    if len(exact) <= limit:
        clean = _escaped(exact)
        if len(clean) <= limit:
            return clean
    mark = f" … ({len(exact):,} characters in all) … "
    half = (limit - len(mark)) // 2
    return f"{_escaped(exact[:half])[:half]}{mark}{_escaped(exact[-half:])[-half:]}"


def last_lines(text: str, limit: int) -> str:
    """``text``, which is plain, or its last whole lines after a mark, in at most ``limit`` characters."""
    if len(text) <= limit:
        return text
    tail = text[-(limit - 2) :] if limit > 2 else ""
    return f"…\n{tail.partition(chr(10))[2] or tail}"


def one_line(text: str, limit: int = 1_000) -> str:
    """``text`` for a line of a log: at most ``limit`` characters, newlines as escapes."""
    return plain_text(text, limit).replace("\n", "\\n").replace("\t", "\\t")


def class_name(value: object) -> str:
    """The qualified name of the class of ``value``, as the interpreter knows it, whatever the class says itself."""
    return plain_text(type.__dict__["__qualname__"].__get__(type(value)), 200)


def full_class_name(value: object) -> str:
    """``class_name`` after the name of its module, where that is a string."""
    try:
        module: object = type.__dict__["__module__"].__get__(type(value))
    except AttributeError:  # the class has deleted it
        module = None
    if not issubclass(type(module), str):
        module = None
    return f"{plain_text(module, 200)}.{class_name(value)}" if isinstance(module, str) else class_name(value)


def shown(value: object, limit: int = 200) -> str:
    """``repr(value)`` as plain text, or what there is instead where that fails. Never raises."""
    try:
        return plain_text(repr(value), limit)
    except BaseException:  # noqa: BLE001  # whatever the object raises
        return f"<{class_name(value)} object>"


def function_name(function: object) -> str:
    """``__name__`` of a function, or of the class of another object that is called. Never raises."""
    try:
        name: Any = getattr(function, "__name__", None)
        return plain_text(name, 200) if issubclass(type(name), str) else class_name(function)
    except BaseException:  # noqa: BLE001  # whatever the object raises
        return class_name(function)


def frames_of(error: BaseException) -> Iterator[tuple[str, int]]:
    """File and line of each frame of the traceback, the innermost last."""
    frames = _get("__traceback__", error)
    while frames is not None:
        yield frames.tb_frame.f_code.co_filename, frames.tb_lineno
        frames = frames.tb_next


def _nothing(_: str) -> bool:
    return False


def _failure_of(error: BaseException, is_machinery: IsMachinery) -> Failure:
    of = type(error)
    name = plain_text(type.__dict__["__name__"].__get__(of), 200)
    said = _said(error)
    message = plain_text(f"{name}: {said}" if said else name, MESSAGE_LIMIT)
    kind = FailureKind.ORDINARY
    if issubclass(of, (ContextError, TaskResultError)):
        kind = FailureKind.UNKEEPABLE
    elif issubclass(of, (ConnectionError, TimeoutError)):
        kind = FailureKind.TRANSIENT
    text = message if len(said) < MESSAGE_LIMIT // 2 else plain_text(f"{name}: {said}", _TEXT_LIMIT)
    return Failure(message, _traceback(error, message, is_machinery), kind, text)


def _said(error: BaseException) -> str:
    """``str(error)``, as an exact string; what kept it from that otherwise."""
    try:
        return str.__str__(str(error))
    except BaseException as why:  # noqa: BLE001  # whatever its __str__ raises
        arguments = _get("args", error)
        with_arguments = f" for the arguments {shown(arguments)}" if arguments else ""
        return f"its __str__ raised {class_name(why)}{with_arguments}"


def _traceback(error: BaseException, message: str, is_machinery: IsMachinery) -> str | None:
    frames = _of_user_code(_get("__traceback__", error), is_machinery)
    if frames is None:  # as of a RuntimeError that the interpreter makes of a StopIteration
        behind = [link for name in ("__cause__", "__context__") if (link := _get(name, error)) is not None]
        if not any(_of_user_code(_get("__traceback__", link), is_machinery) for link in behind):
            return None
    for lines in (_with_links, _alone):
        try:
            return _bounded(lines(error, frames, message, is_machinery))
        except BaseException:  # noqa: BLE001, S112  # the exception, or one behind it, misbehaves
            continue
    return f"{message}\n"


def _of_user_code(frames: TracebackType | None, is_machinery: IsMachinery) -> TracebackType | None:
    """``frames`` without our own and the machinery's on top."""
    while frames is not None:
        module = dict.get(frames.tb_frame.f_globals, "__name__")
        ours = type(module) is str and module.startswith("cloaca.")
        if not ours and not is_machinery(frames.tb_frame.f_code.co_filename):
            return frames
        frames = frames.tb_next
    return None


def _with_links(
    error: BaseException, frames: TracebackType | None, _message: str, is_machinery: IsMachinery
) -> Iterator[str]:
    """As the interpreter shows it, with its causes."""
    if _has_many_links(error):
        raise ValueError("too many causes to format")
    from traceback import TracebackException

    formatted = TracebackException(type(error), error, frames, limit=-_FRAMES, compact=True)
    link: TracebackException | None = formatted
    while link is not None:
        link.stack = _without_machinery(link.stack, is_machinery)
        link = link.__cause__ or link.__context__
    return formatted.format()


def _alone(
    _error: BaseException, frames: TracebackType | None, message: str, is_machinery: IsMachinery
) -> Iterator[str]:
    """Without its causes."""
    from traceback import extract_tb

    yield "Traceback (most recent call last):\n"
    yield from _without_machinery(extract_tb(frames, limit=-_FRAMES), is_machinery).format()
    yield f"{message}\n"
    yield "(the exceptions behind it are left out: they are too many, or cannot be shown)\n"


def _without_machinery(stack: StackSummary, is_machinery: IsMachinery) -> StackSummary:
    if is_machinery is _nothing:
        return stack
    return type(stack).from_list([frame for frame in stack if not is_machinery(frame.filename)])


def _bounded(lines: Iterator[str]) -> str:
    """The first and the last of ``lines``, each of them cut, in ``TRACEBACK_LIMIT`` characters."""
    first, last = "", ""
    for count, line in enumerate(lines, start=1):
        text = plain_text(line, _CHUNK_LIMIT)
        if not last and len(first) + len(text) <= _HEAD_LIMIT:
            first += text
        else:
            last += text
        if len(last) > 4 * TRACEBACK_LIMIT:
            last = last_lines(last, TRACEBACK_LIMIT)
        if count == _CHUNKS:
            last += "…\n"
            break
    return first + last_lines(last, TRACEBACK_LIMIT - len(first))


def _has_many_links(error: BaseException) -> bool:
    """Whether more exceptions hang on ``error`` than are worth formatting."""
    groups = getattr(sys.modules["builtins"], "BaseExceptionGroup", None)  # of Python 3.11
    seen: set[int] = set()
    found = [error]
    while found:
        one = found.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if len(seen) > _LINKS:
            return True
        found += [link for name in ("__cause__", "__context__") if (link := _get(name, one)) is not None]
        if groups is not None and issubclass(type(one), groups):
            found += groups.exceptions.__get__(one)[: _LINKS + 1]
    return False


def _get(name: str, error: BaseException) -> Any:
    """The attribute as the interpreter has it, whatever the class makes of that name."""
    return BaseException.__dict__[name].__get__(error)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text  # and so without surrogates
    clean = text.replace("\r\n", "\n").translate(_ESCAPES)
    return clean if clean.isascii() else clean.encode("utf-8", "backslashreplace").decode()
