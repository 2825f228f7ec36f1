"""Get an archive's bytes from where a package says they are. Bounded in size; checks no digest and no signature."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cloaca.errors import SourceError
from cloaca.packages.files import in_own_thread, read_file
from cloaca.packages.http import Credentials, download


class UnsupportedSource(SourceError):
    """There is no way from here to such a source; another try cannot help."""


async def fetch(url: str, *, limit: int, files: bool, credentials: Credentials | None = None) -> bytes:
    """The bytes at ``url``, at most ``limit``. ``files``: whether ``file:`` may be read (by the local daemon only).

    Raises UnsupportedSource for a scheme that cannot be fetched here, SourceError for anything that may pass.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and files:
        if parts.netloc not in ("", "localhost"):
            raise UnsupportedSource(f"{url}: a file URL names a file of this machine: file:///path/to/it")
        return await in_own_thread(partial(_read, Path(url2pathname(parts.path)), limit))
    if parts.scheme == "file":
        raise UnsupportedSource(f"{url}: files are read by the local daemon only; use a ConfigMap or http(s)")
    if parts.scheme in ("http", "https"):
        return await asyncio.to_thread(download, url, limit=limit, credentials=credentials)
    raise UnsupportedSource(f"{url}: this version fetches from http(s), ConfigMaps, and file: in the local daemon")


def _read(path: Path, limit: int) -> bytes:
    try:
        data = read_file(path, limit)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > limit:
        raise SourceError(f"{path} is larger than the limit of {limit:,} bytes")
    return data
