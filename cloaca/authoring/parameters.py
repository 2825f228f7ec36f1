"""What a function of an author's can be called with; nothing is called."""

from __future__ import annotations

from cloaca.authoring.value import Value, changed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_VARARGS = 0x04
_GENERATOR = 0x20
_COROUTINE = 0x80
_ASYNC_GENERATOR = 0x200
_MOST_DECORATORS = 50


class Parameters(Value):
    """What a caller passes, and what comes back when it is called."""

    positional: tuple[str, ...]  # by position, without the ``self`` of a bound method
    required: tuple[str, ...]  # those of them that have no default
    required_keywords: tuple[str, ...] = ()  # which no caller of ours passes
    any_number: bool = False  # *args, or a callable of which nothing is known
    is_async: bool = False  # calling it gives a coroutine
    is_generator: bool = False  # calling it gives a generator, async or not
    wrapped: bool = False  # it takes anything, and the parameters are those of the function that it decorates


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Read from the function's code object, which costs nothing; from ``inspect`` for partials and other objects.

    A function that takes any number of arguments and decorates another one (``functools.wraps``) takes what that one
    does.
    """
    takes = _own_parameters(function)
    for _ in range(_MOST_DECORATORS):
        inner = getattr(function, "__wrapped__", None)
        if not takes.any_number or takes.positional or not callable(inner):
            break
        function, behind = inner, _own_parameters(inner)
        takes = changed(
            takes,
            positional=behind.positional,
            required=behind.required,
            any_number=behind.any_number,
            wrapped=True,
        )
    return takes


def _own_parameters(function: Callable[..., Any]) -> Parameters:
    code = getattr(function, "__code__", None)
    if code is None:
        return _inspected(function)
    names: tuple[str, ...] = code.co_varnames[: code.co_argcount]
    if getattr(function, "__self__", None) is not None:
        names = names[1:]
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    defaults = getattr(function, "__defaults__", None) or ()
    keyword_defaults = getattr(function, "__kwdefaults__", None) or {}
    return Parameters(
        positional=names,
        required=names[: max(0, len(names) - len(defaults))],
        required_keywords=tuple(name for name in keywords if name not in keyword_defaults),
        any_number=bool(code.co_flags & _VARARGS),
        is_async=bool(code.co_flags & _COROUTINE),
        is_generator=bool(code.co_flags & (_GENERATOR | _ASYNC_GENERATOR)),
    )


def _inspected(function: Callable[..., Any]) -> Parameters:
    import inspect  # slow to import, and few authors decorate anything but a function

    called = function
    while hasattr(called, "func") and hasattr(called, "args"):  # functools.partial
        called = called.func
    if not hasattr(called, "__code__") and not isinstance(called, type):
        called = type(called).__call__
    is_async = inspect.iscoroutinefunction(called)
    is_generator = inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)
    try:
        given = inspect.signature(function, follow_wrapped=False).parameters.values()
    except (ValueError, TypeError):  # a C function that does not say
        return Parameters((), (), any_number=True, is_async=is_async, is_generator=is_generator)
    positional = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return Parameters(
        positional=tuple(p.name for p in positional),
        required=tuple(p.name for p in positional if p.default is p.empty),
        required_keywords=tuple(p.name for p in given if p.kind is p.KEYWORD_ONLY and p.default is p.empty),
        any_number=any(p.kind is p.VAR_POSITIONAL for p in given),
        is_async=is_async,
        is_generator=is_generator,
    )
