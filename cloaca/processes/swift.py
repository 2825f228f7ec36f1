"""Make the start of a process cheaper that is there for one run. Changes nothing of what it does."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_LOADER = "pydantic.plugin._loader"
_OFF = ("__all__", "1", "true")  # what pydantic takes for "no plugins at all"


@contextmanager
def importing() -> Iterator[None]:
    """A block of imports: what they make stays, so the collector looks at none of it, neither now nor later."""
    gc.disable()
    _leave_out_plugins()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _leave_out_plugins() -> None:
    """Spare pydantic what it loads to look for plugins, where $PYDANTIC_DISABLE_PLUGINS says that there are none: that
    is a quarter of all imports of a run."""
    if os.environ.get("PYDANTIC_DISABLE_PLUGINS") in _OFF:
        sys.modules.setdefault(_LOADER, _NoPlugins(_LOADER))


class _NoPlugins(ModuleType):
    """Stands for pydantic's loader of plugins, and for all else that is asked of it loads the real one."""

    def get_plugins(self) -> tuple[()]:
        """There are none."""
        return ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_LOADER) is self:
            del sys.modules[_LOADER]
        return getattr(import_module(_LOADER), name)
