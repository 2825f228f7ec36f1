"""Context: the JSON object that flows through a workflow. Refuses what JSON cannot hold, when it is set."""

from __future__ import annotations

from cloaca.errors import ContextError, ContextKeyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

CONTEXT_LIMIT = 256 * 1024
"""Bytes of JSON of one context; a reference to stored data belongs into it, not the data."""

_LARGEST = 10**4000  # longer integers are refused by Python's own JSON reader
_COMMON = 10**9  # shorter integers need no further look
_DEPTH = 100  # deeper nesting is a cycle or a mistake, and would exhaust parsers on the other side


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of ``value`` made of dict, list and JSON scalars only; tuples become lists.

    Raises ContextError that names ``where`` and the type, for anything that JSON cannot hold: other types, NaN and
    infinities, keys that are no strings, lone surrogates, nesting beyond 100 levels.
    """
    kind = type(value)
    if (
        kind is bool
        or value is None
        or (kind is str and value.isascii())
        or (kind is int and -_COMMON < value < _COMMON)
    ):
        return value
    if kind is str:
        return _text(value, where)
    if kind is int or kind is float:
        return _number(value, where)
    if depth >= _DEPTH:
        raise ContextError(f"{where} is nested deeper than {_DEPTH} levels (or contains itself)")
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, Context):
        value = value._data
    if isinstance(value, dict) or _is_mapping(value):
        return {(name := _key(key, where)): plain(item, f"{where}[{name!r}]", depth + 1) for key, item in value.items()}
    if isinstance(value, str):  # subclasses, such as str enums and IntEnum: what they are, whatever they say
        return plain(str.__str__(value), where, depth)
    if isinstance(value, int):
        return plain(int.__int__(value), where, depth)
    if isinstance(value, float):  # numpy.float64 among them
        return plain(float.__float__(value), where, depth)
    from cloaca.failure import full_class_name  # here and below: an error is rare, and this module is loaded by all

    raise ContextError(
        f"{where} is of type {full_class_name(value)}, which JSON cannot hold: "
        "store text, numbers, booleans, None, lists or dicts of those"
    )


def _is_mapping(value: object) -> bool:
    from collections.abc import Mapping  # any program that has one has imported this already

    return isinstance(value, Mapping)


def _key(key: Any, where: str) -> str:
    if type(key) is str and key.isascii():
        return key
    if not isinstance(key, str):
        from cloaca.failure import class_name, shown

        raise ContextError(f"{where} has the key {shown(key)} of type {class_name(key)}: JSON keys are strings")
    return _text(str.__str__(key), f"a key of {where}")


def _number(value: float, where: str) -> float:
    if isinstance(value, int):
        if not -_LARGEST < value < _LARGEST:
            raise ContextError(f"{where} is an integer of more than 4000 digits: store it as a string")
    elif value - value != 0.0:  # NaN and both infinities
        raise ContextError(f"{where} is {value!r}: JSON has no such number; use None or a string")
    return value


def _text(value: str, where: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ContextError(f"{where} holds a lone surrogate, which is no valid text: decode it first") from None
    return value


class Context:
    """Data that tasks read and write: string keys, JSON values.

    >>> context = Context({"filename": "orders.parquet"})
    >>> context.set("rows", 3)
    >>> context.to_dict()
    {'filename': 'orders.parquet', 'rows': 3}
    """

    __slots__ = ("_data",)

    def __init__(self, data: Mapping[str, Any] | Context | None = None) -> None:
        self._data: dict[str, Any] = {}
        if data is not None:
            self.update_from_dict(data)

    @classmethod
    def _holding(cls, data: dict[str, Any]) -> Context:
        """A context around ``data`` itself, which ``plain`` has let in before."""
        context = cls.__new__(cls)
        context._data = data
        return context

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``.

        >>> Context({"rows": 3}).get("files", [])
        []
        """
        return self._data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Set ``key``, whether it exists or not. Raises ContextError for what JSON cannot hold.

        >>> context = Context()
        >>> context.set("rows", 3)
        >>> context.set("handle", open)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cloaca.errors.ContextError: context value 'handle' is of type ..., which JSON cannot hold: ...
        """
        name = _key(key, "the context")
        self._data[name] = plain(value, f"context value {name!r}")

    def insert(self, key: str, value: Any) -> None:
        """Set a new ``key``. Raises ContextError (a ValueError) if it exists.

        >>> context = Context()
        >>> context.insert("rows", 3)
        >>> context.insert("rows", 4)
        Traceback (most recent call last):
        cloaca.errors.ContextError: context key 'rows' already exists: use update() or set() to change it
        """
        if key in self._data:
            raise ContextError(f"context key {key!r} already exists: use update() or set() to change it")
        self.set(key, value)

    def update(self, key: str, value: Any) -> None:
        """Change an existing ``key``. Raises ContextKeyError (a KeyError) if there is none.

        >>> context = Context({"rows": 3})
        >>> context.update("rows", 4)
        >>> context.update("row", 4)
        Traceback (most recent call last):
        cloaca.errors.ContextKeyError: context has no key 'row': use insert() or set() to add it
        """
        if key not in self._data:
            raise ContextKeyError(f"context has no key {key!r}: use insert() or set() to add it")
        self.set(key, value)

    def remove(self, key: str) -> Any:
        """Take ``key`` out and return its value, or None if there was none.

        >>> context = Context({"rows": 3})
        >>> context.remove("rows"), context.remove("rows")
        (3, None)
        """
        return self._data.pop(key, None)

    def to_dict(self) -> dict[str, Any]:
        """A copy as a dict; nested lists and dicts are copies too.

        >>> Context({"files": ["a.csv"]}).to_dict()
        {'files': ['a.csv']}
        """
        return {key: _copy(value) for key, value in self._data.items()}

    def update_from_dict(self, data: Mapping[str, Any] | Context) -> None:
        """Set every key of ``data``; all of them or, where one is refused, none.

        >>> context = Context({"rows": 3})
        >>> context.update_from_dict({"rows": 4, "valid": True})
        >>> context
        Context({'rows': 4, 'valid': True})
        """
        items = data._data if isinstance(data, Context) else data
        if not isinstance(items, dict) and not _is_mapping(items):
            from cloaca.failure import class_name

            raise ContextError(f"a context is made from a dict, not from {class_name(data)}")
        if items:
            checked = {
                (name := _key(key, "the context")): plain(value, f"context value {name!r}")
                for key, value in items.items()
            }
            self._data.update(checked)

    def to_json(self) -> str:
        """As JSON text. Raises ContextError where a nested value was changed into what JSON cannot hold.

        >>> Context({"rows": 3}).to_json()
        '{"rows": 3}'
        """
        import json

        return json.dumps(plain(self, "context"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Context:
        """The context that ``to_json`` wrote. Raises ContextError for text that is no JSON object.

        >>> Context.from_json('{"rows": 3}')["rows"]
        3
        """
        import json

        try:
            data = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise ContextError(f"this is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise ContextError(f"a context is a JSON object, not a {type(data).__name__}")
        return cls(data)

    def __getitem__(self, key: str) -> Any:
        try:
            return self._data[key]
        except KeyError:
            raise ContextKeyError(f"context has no key {key!r}") from None

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self._data:
            raise ContextKeyError(f"context has no key {key!r}")
        del self._data[key]

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __eq__(self, other: object) -> bool:
        return self._data == other._data if isinstance(other, Context) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable, so it must not be a key

    def __repr__(self) -> str:
        return f"Context({self._data!r})"


def _copy(value: Any) -> Any:
    """A deep copy of what ``plain`` let in; much faster than copy.deepcopy."""
    if type(value) is dict:
        return {key: _copy(item) for key, item in value.items()}
    if type(value) is list:
        return [_copy(item) for item in value]
    return value
