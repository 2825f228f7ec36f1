"""Get an archive's bytes from where a package says they are. Bounded in size; checks no digest and no signature.

Blocks: it runs in the process of a fetch, which has nothing else to do.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cloaca.errors import SourceError
from cloaca.packages.addresses import SourcePolicy
from cloaca.packages.files import read_file
from cloaca.packages.http import Answer, Credentials, download


class UnsupportedSource(SourceError):
    """There is no way from here to such a source; another try cannot help."""


def check_url(url: str, *, files: bool) -> None:
    """Raise UnsupportedSource where ``fetch`` would, without asking anybody."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        if not files:
            raise UnsupportedSource(f"{url}: files are read by the local daemon only; use a ConfigMap or http(s)")
        if parts.netloc not in ("", "localhost"):
            raise UnsupportedSource(f"{url}: a file URL names a file of this machine: file:///path/to/it")
    elif parts.scheme not in ("http", "https"):
        raise UnsupportedSource(f"{url}: this version fetches from http(s), ConfigMaps, and file: in the local daemon")


def fetch(
    url: str,
    *,
    limit: int,
    files: bool,
    policy: SourcePolicy,
    credentials: Credentials | None = None,
    revision: str | None = None,
) -> Answer:
    """The bytes at ``url``, at most ``limit``. ``files``: whether ``file:`` may be read (by the local daemon only).
    ``policy``: which addresses may be reached. ``revision``: of an earlier answer; where the source says that it is
    still the one, the answer has no bytes.

    Raises UnsupportedSource for a scheme that cannot be fetched here, SourceError for anything that may pass.
    """
    check_url(url, files=files)
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Answer(data=_read(Path(url2pathname(parts.path)), limit))
    return download(url, limit=limit, credentials=credentials, revision=revision, policy=policy)


def read_parts(folder: Path, *, limit: int, named: str) -> bytes:
    """The archive whose parts ``000``, ``001`` … are in ``folder``: a mounted ConfigMap, or several.

    ``named``: what to call it. Raises SourceError.
    """
    data = bytearray()
    number = 0
    while (part := folder / f"{number:03d}").exists():
        data += _read(part, limit)
        if len(data) > limit:
            raise SourceError(f"{named} holds more than the limit of {limit:,} bytes")
        number += 1
    if not number:
        raise SourceError(f"{named} is not there: create the ConfigMap with that key in its binaryData")
    return bytes(data)


def read_credentials(folder: Path, *, named: str) -> Credentials:
    """From a mounted Secret with ``token``, or with ``username`` and ``password``; its key ``hosts``, if it has one,
    names the only hosts that may see them. Raises SourceError."""
    values: dict[str, str] = {}
    for key in ("token", "username", "password", "hosts"):
        try:
            values[key] = (folder / key).read_text(encoding="utf-8").strip("\n")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            raise SourceError(f"the Secret {named}: token, username, password and hosts must be text") from None
    hosts = frozenset(values["hosts"].replace(",", " ").split()) if "hosts" in values else None
    if "token" in values:
        return Credentials(token=values["token"], hosts=hosts)
    if {"username", "password"} <= values.keys():
        return Credentials(username=values["username"], password=values["password"], hosts=hosts)
    raise SourceError(f"there is no Secret {named} with the key token, or the keys username and password: create it")


def _read(path: Path, limit: int) -> bytes:
    try:
        data = read_file(path, limit)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > limit:
        raise SourceError(f"{path} is larger than the limit of {limit:,} bytes")
    return data
