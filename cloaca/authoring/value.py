"""Frozen values with named fields: what ``dataclasses`` gives, without the 30 ms that it costs each program's start."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import dataclass_transform

    V = TypeVar("V", bound="Value")
else:

    def dataclass_transform(**_):
        """Only tells type checkers what subclasses are."""
        return lambda cls: cls


class _Fields:
    """Lets ``dataclasses.replace`` and ``fields`` work on values, as type checkers take for granted."""

    def __get__(self, _: object, owner: type[Value]) -> dict[str, Any]:
        from dataclasses import fields, make_dataclass

        return {field.name: field for field in fields(make_dataclass(owner.__name__, owner.__value_fields__))}


@dataclass_transform(frozen_default=True)
class Value:
    """Base of a frozen value: subclasses declare fields as a dataclass does, and may check them in ``__post_init__``.

    Equal where type and fields are equal; ``dataclasses.replace`` makes a changed copy.
    """

    __dataclass_fields__ = _Fields()

    __value_fields__: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls.__value_fields__ = (*cls.__value_fields__, *getattr(cls, "__annotations__", ()))

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self.__value_fields__
        if len(values) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} values, not {len(values)}")
        twice = named.keys() & set(fields[: len(values)])
        unknown = named.keys() - set(fields)
        if twice or unknown:
            raise TypeError(f"{type(self).__name__} does not take {', '.join(sorted(twice | unknown))} here")
        own = self.__dict__
        own.update(zip(fields, values))  # noqa: B905  # fewer values than fields: the rest are named or defaults
        own.update(named)
        for field in fields:
            if field not in own:
                try:
                    own[field] = getattr(type(self), field)
                except AttributeError:
                    raise TypeError(f"{type(self).__name__} needs {field}") from None
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the fields together; called when all of them are set."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: make a copy with dataclasses.replace")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.items()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__value_fields__)
        return f"{type(self).__name__}({fields})"


def changed(value: V, **changes: Any) -> V:
    """What ``dataclasses.replace`` gives, without that module, and without a class that it would make first."""
    fields = {name: getattr(value, name) for name in value.__value_fields__}
    return type(value)(**{**fields, **changes})
