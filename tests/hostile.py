"""Exceptions and values that misbehave in every way that libraries have been seen to, and some more.

Imports nothing of ours: packages of the tests carry this file, too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

LARGE = 5_000_000  # characters


class StrRaises(Exception):
    def __init__(self, response: Any = None) -> None:
        self.response = response

    def __str__(self) -> str:
        return str("status " + self.response.status)


class StrExits(Exception):
    def __str__(self) -> str:  # noqa: PLE0307  # that is the point
        sys.exit(3)


class StrIsNoString(Exception):
    def __str__(self) -> str:
        return 5  # noqa: PLE0307  # type: ignore[return-value]


class StrInterrupts(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class OddString(str):
    def _raise(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no")

    __len__ = __iter__ = __format__ = __str__ = __repr__ = __getitem__ = __add__ = __radd__ = __contains__ = _raise
    encode = isascii = isprintable = strip = splitlines = lower = replace = translate = _raise
    __hash__ = str.__hash__


class StrIsOdd(Exception):
    def __str__(self) -> str:
        return OddString("odd")


class ReprRaises(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class BadArguments(Exception):
    def __str__(self) -> str:
        raise ValueError("no str")

    def __repr__(self) -> str:
        raise ValueError("no repr")


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__", "__mro__", "mro", "__dict__"):
            raise RuntimeError("no " + name)
        return super().__getattribute__(name)

    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("no instance")

    def __repr__(cls) -> str:
        raise RuntimeError("no repr")


class Nameless(Exception, metaclass=Meta):
    pass


class NoClass(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")


class NoClassBase(BaseException):
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")


class OddModule(Exception):
    __module__ = 7  # type: ignore[assignment]


def _misbehaving(name: str, base: type[BaseException] = Exception) -> BaseException:
    def get(_: Any) -> Any:
        raise RuntimeError(f"no {name}")

    made: BaseException = type("Misbehaving", (base,), {name: property(get)})("text")
    return made


class NotEqual(Exception):
    def __eq__(self, _: object) -> bool:
        raise RuntimeError("no ==")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __bool__(self) -> bool:
        raise RuntimeError("no bool")

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no attribute " + name)


class ManyNotes(Exception):
    class Notes(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            while True:
                yield "note"

    __notes__ = Notes()


def _own_cause() -> BaseException:
    error = ValueError("round")
    error.__cause__ = OSError("and round")
    error.__cause__.__cause__ = error
    error.__cause__.__context__ = error
    return error


def _long_chain(length: int = 20_000) -> BaseException:
    first = last = ValueError("the last of many")
    for number in range(length):
        cause = ValueError(str(number))
        last.__cause__ = cause
        last = cause
    return first


def _with_note(note: Any) -> BaseException:
    error = ValueError("noted")
    error.__notes__ = note  # type: ignore[attr-defined]
    return error


def _group(*members: BaseException) -> BaseException:
    made: BaseException = ExceptionGroup("several", members)  # type: ignore[name-defined]  # noqa: F821
    return made


def _nested_group(depth: int) -> BaseException:
    error: BaseException = ValueError("the innermost")
    for _ in range(depth):
        error = _group(error)
    return error


EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "str raises": StrRaises,
    "str exits": StrExits,
    "str interrupts": StrInterrupts,
    "str is no string": StrIsNoString,
    "str is odd": StrIsOdd,
    "repr raises": ReprRaises,
    "arguments cannot be shown": lambda: BadArguments(BadArguments()),
    "metaclass": Nameless,
    "no class": NoClass,
    "no class, no Exception": NoClassBase,
    "odd module": OddModule,
    "no traceback": lambda: _misbehaving("__traceback__"),
    "no cause": lambda: _misbehaving("__cause__"),
    "no context": lambda: _misbehaving("__context__"),
    "no notes": lambda: _misbehaving("__notes__"),
    "no args": lambda: _misbehaving("args"),
    "no attribute at all": NotEqual,
    "endless notes": ManyNotes,
    "notes that are none": lambda: _with_note(BadArguments()),
    "a large note": lambda: _with_note(["n" * LARGE]),
    "its own cause": _own_cause,
    "a long chain": _long_chain,
    "a large message": lambda: ValueError("x" * LARGE),
    "a large message in lines": lambda: ValueError("line\n" * (LARGE // 5)),
    "lone surrogates": lambda: OSError("no such file: caf\udce9.csv"),
    "NUL and escapes": lambda: ValueError("\x00 \x1b[31mred\x1b[0m \x85\r"),
    "no text": ValueError,
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration("over"),
    "StopAsyncIteration": StopAsyncIteration,
    "CancelledError": asyncio.CancelledError,
    "BaseException": lambda: BaseException("base"),
    "MemoryError": MemoryError,
    "RecursionError": lambda: RecursionError("maximum recursion depth exceeded"),
    "SyntaxError": lambda: SyntaxError("odd", ("f\udce9.py", "one", object(), 5)),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff" * LARGE, 0, LARGE, "invalid"),
}
if sys.version_info >= (3, 11):
    EXCEPTIONS |= {
        "a group": lambda: _group(StrRaises(), OSError("second")),
        "a deep group": lambda: _nested_group(2_000),
        "a wide group": lambda: _group(*(ValueError(str(number)) for number in range(50_000))),
        "a wide group with large messages": lambda: _group(*(ValueError("x" * 100_000) for _ in range(50))),
    }


def exception(kind: str) -> BaseException:
    """One of ``EXCEPTIONS``."""
    return EXCEPTIONS[kind]()


class NoClassValue:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")


class NoClassExits:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        sys.exit(3)


class NamelessValue(metaclass=Meta):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class OddMapping(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        sys.exit(3)


class OddInt(int):
    def __int__(self) -> int:
        raise RuntimeError("no int")

    __index__ = __lt__ = __gt__ = __repr__ = __str__ = __int__  # type: ignore[assignment]


class OddFloat(float):
    def __float__(self) -> float:
        raise RuntimeError("no float")

    __repr__ = __str__ = __sub__ = __float__  # type: ignore[assignment]


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


VALUES: dict[str, Callable[[], Any]] = {
    "no class": NoClassValue,
    "class exits": NoClassExits,
    "metaclass": NamelessValue,
    "a mapping that exits": OddMapping,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("-inf"),
    "a huge integer": lambda: 10**5_000,
    "deep": lambda: deep(10_000),
    "a lone surrogate": lambda: "caf\udce9.csv",
    "a lone surrogate in a key": lambda: {"caf\udce9.csv": 1},
    "a key that is no string": lambda: {NamelessValue(): 1},
    "an exception": StrRaises,
}
"""What no context can hold."""

SUBCLASSES: dict[str, tuple[Callable[[], Any], Any]] = {
    "str": (lambda: OddString("odd"), "odd"),
    "str as a key": (lambda: {OddString("odd"): 1}, {"odd": 1}),
    "int": (lambda: OddInt(7), 7),
    "float": (lambda: OddFloat(0.5), 0.5),
    "NUL": (lambda: "a\x00b", "a\x00b"),
    "NUL in a key": (lambda: {"a\x00b": 1}, {"a\x00b": 1}),
}
"""What a context holds as the plain value beside it, whatever the methods of its class do."""
