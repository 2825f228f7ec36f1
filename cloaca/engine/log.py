"""A logger that is there once something is logged: a run of which nothing is to be said never loads ``logging``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging


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
