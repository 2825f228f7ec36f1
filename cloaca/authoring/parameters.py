"""What a function of an author's can be called with, read from its code object; nothing is called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_VARARGS = 0x04
_COROUTINE = 0x80
_GENERATOR = 0x20
_ASYNC_GENERATOR = 0x200


def positional_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the parameters that a caller passes by position, without ``self`` of a bound method.

    ``*args`` and keyword-only parameters are left out. A callable without Python code (a builtin, a C function) has
    none that could be named.
    """
    target = _unwrapped(function)
    code = getattr(target, "__code__", None)
    if code is None:
        return ()
    names: tuple[str, ...] = code.co_varnames[: code.co_argcount]
    return names[1:] if getattr(target, "__self__", None) is not None else names


def required_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Those of ``positional_parameters`` that have no default."""
    names = positional_parameters(function)
    defaults = getattr(_unwrapped(function), "__defaults__", None) or ()
    return names[: len(names) - len(defaults)]


def takes_any_number(function: Callable[..., Any]) -> bool:
    """Whether the function has ``*args``."""
    return _has_flag(function, _VARARGS)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    return _has_flag(function, _COROUTINE)


def is_generator(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator, async or not."""
    return _has_flag(function, _GENERATOR) or _has_flag(function, _ASYNC_GENERATOR)


def _has_flag(function: Callable[..., Any], flag: int) -> bool:
    code = getattr(_unwrapped(function), "__code__", None)
    return code is not None and bool(code.co_flags & flag)


def _unwrapped(function: Callable[..., Any]) -> Any:
    """The Python function behind partials and callable objects (decorators' ``__wrapped__`` is left alone: the
    wrapper is what gets called)."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__code__") and not isinstance(function, type):
        return getattr(function, "__call__", function)  # noqa: B004  # the method itself is wanted, to read its code
    return function
