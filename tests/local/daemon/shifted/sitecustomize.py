"""Imported by every Python process that has this folder on its path: the wall clock is off by what a file says.

The monotonic clock goes on as it is, as when somebody sets a machine's time.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

_OFFSET = Path(os.environ["SHIFTED_CLOCK"])  # seconds
_time, _datetime = time.time, dt.datetime


def _shift() -> float:
    return float(_OFFSET.read_text() or 0)


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, _datetime)


class _Shifted(_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _datetime.fromtimestamp(_time() + _shift(), tz)


time.time = lambda: _time() + _shift()
dt.datetime = _Shifted  # type: ignore[misc]  # whoever imports it from now on has this one
