"""A temporary folder for the time of one block, and a sentence for where none can be had."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloaca.errors import CloacaError

_ADVICE = "set $TMPDIR to a folder that can be written and has space"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder that is removed at the end of the block.

    Raises CloacaError if no temporary folder can be written, or if the one that there is runs full or turns read-only
    in the block.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="cloaca-", ignore_cleanup_errors=True)
    except OSError as error:
        raise CloacaError(f"no temporary folder can be made: {error.strerror or error}: {_ADVICE}") from error
    with made as folder:
        try:
            yield Path(folder)
        except OSError as error:
            about_it = error.filename is None or str(error.filename).startswith(folder)
            if about_it and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise CloacaError(f"the temporary folder {folder}: {error.strerror}: {_ADVICE}") from error
            raise
