"""A logger that is there once something is logged: a run of which nothing is to be said never loads ``logging``."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class Log:
    """The logger of that name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def warning(self, message: str, *arguments: object) -> None:
        """As ``logging.Logger`` has it."""
        self._logger().warning(message, *arguments, stacklevel=2)

    def exception(self, message: str, *arguments: object) -> None:
        """As ``logging.Logger`` has it."""
        self._logger().exception(message, *arguments, stacklevel=2)

    def _logger(self) -> logging.Logger:
        import logging

        silent_by_default()
        return logging.getLogger(self._name)


def silent_by_default() -> None:
    """Nothing of ours is printed, unless the program configures logging. Idempotent."""
    import logging

    ours = logging.getLogger("cloaca")
    if not any(isinstance(handler, logging.NullHandler) for handler in ours.handlers):
        ours.addHandler(logging.NullHandler())


def once_loaded(configure: Callable[[], None]) -> None:
    """Call ``configure`` once ``logging`` is loaded, by whomever, and before they can log anything."""
    if "logging" in sys.modules:
        configure()
    else:
        sys.meta_path = [_Awaiting(configure), *sys.meta_path]


class _Awaiting:
    """Is asked first for every module, until it is asked for ``logging``."""

    def __init__(self, configure: Callable[[], None]) -> None:
        self._configure = configure

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """As the protocol of ``sys.meta_path`` has it."""
        if name != "logging" or self not in sys.meta_path:
            return None
        from importlib.util import find_spec

        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]  # others may be going through it
        spec = find_spec(name)
        loader = None if spec is None else spec.loader
        if loader is None:
            return spec
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self._configure()

        loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one loader, which loads one module
        return spec
