"""The exit codes of a run's process. Imports nothing, so that whoever reads them need not load what writes them."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ENDED = 0
"""A terminal phase was recorded."""
INTERRUPTED = 75
"""Asked to stop; what was finished is recorded, and another process resumes."""
LOST = 76
"""The run belongs to another process, was ended or was deleted: nothing to do here."""


def obey_at_once(_number: int, _frame: object) -> NoReturn:
    """The handler of SIGTERM until a loop takes over: the first process of a container has no default one."""
    os._exit(INTERRUPTED)
