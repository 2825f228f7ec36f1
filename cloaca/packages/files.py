"""Read files of a file system that may be strange or may not answer. Opens nothing but regular files."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # a pipe that takes a file's place delays nobody
_CHUNK = 1024 * 1024

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_regular(mode: int) -> None:
    """Raise OSError, which says what it is instead, unless ``mode`` (``st_mode``) is that of a regular file."""
    if not stat.S_ISREG(mode):
        kind = next((kind for test, kind in _KINDS if test(mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")


def read_file(path: str | os.PathLike[str], limit: int, *, folder: int | None = None) -> bytes:
    """The content of a regular file, or its first ``limit`` + 1 bytes where it is larger than ``limit``.

    ``folder``: a descriptor of the folder that a relative ``path`` starts from; None: the working folder. A pipe, a
    socket or a device is not opened. Raises OSError.
    """
    check_regular(os.stat(path, dir_fd=folder).st_mode)
    descriptor = os.open(path, _FLAGS, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        check_regular(status.st_mode)
        pieces, left = [], limit + 1
        while left > 0 and (piece := os.read(descriptor, min(left, _CHUNK))):
            pieces.append(piece)
            left -= len(piece)
    finally:
        os.close(descriptor)
    data = b"".join(pieces)
    if len(data) < min(status.st_size, limit + 1):
        raise OSError(errno.EIO, f"it ends after {len(data):,} of {status.st_size:,} bytes")
    return data


async def in_own_thread(work: Callable[[], T]) -> T:
    """What ``work`` returns. It runs in a thread that the end of the program does not wait for: a file system that
    stopped answering blocks it for as long as it likes."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def answer(value: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)  # type: ignore[arg-type]  # T itself where there is no error
        else:
            future.set_exception(error)

    def perform() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = (work(), None)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller waits for it
            outcome = (None, error)
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(answer, *outcome)

    threading.Thread(target=perform, name="cloaca-file", daemon=True).start()
    return await future
