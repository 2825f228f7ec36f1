"""Put together the archive that is mounted into a pod, check its digest, unpack it. Imports nothing of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

from cloaca.authoring.value import Value
from cloaca.errors import ArchiveError
from cloaca.packages.archive import digest_of, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

LAST_WORDS = "CLOACA_LAST_WORDS"
"""The file that the kubelet shows as the container's termination message, where it is not Kubernetes' own."""
LONGEST_WORDS = 4096
"""Bytes of a termination message that the kubelet keeps."""
DIGEST_FILE = "digest"
"""Beside the parts that a fetch left: what they together are."""
_PART = re.compile(r"[0-9]{3}")


class Mounted(Value):
    """A package that is ready to be imported."""

    root: Path
    entry_module: str

    @property
    def manifest(self) -> Path:
        """Its manifest.json."""
        return self.root / "manifest.json"


def arguments(description: str, *, fetched: bool = False) -> ArgumentParser:
    """The arguments that every process of a pod takes. ``fetched``: a fetch in the same pod may say the digest."""
    from argparse import ArgumentParser  # the process of a run reads its own without it

    parser = ArgumentParser(description=description)
    parser.add_argument("--archive", type=Path, required=True, help="folder with the parts of the archive: 000, 001 …")
    parser.add_argument("--digest", required=not fetched, help="what the parts together must be: sha256:…")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/cloacina"), help="where it is unpacked")  # noqa: S108  # the pod's own
    return parser


def mounted(folder: Path, digest: str | None, scratch: Path) -> Mounted:
    """The package of the archive in ``folder``, unpacked below ``scratch``. ``digest`` None: the one that stands there.

    Raises ArchiveError where parts are missing or the bytes are not those of ``digest``: nothing is unpacked then.
    """
    data = joined_parts(folder)
    if digest is None:
        digest = _left_digest(folder)
    if digest_of(data) != digest:
        raise ArchiveError(f"{folder} holds an archive with digest {digest_of(data)}, but {digest} was asked for")
    root = scratch / digest.removeprefix("sha256:")
    scratch.mkdir(parents=True, exist_ok=True)
    unpack(data, root)
    entry_module = json.loads((root / "manifest.json").read_bytes())["python"]["entry_module"]
    return Mounted(root=root, entry_module=entry_module)


def joined_parts(folder: Path) -> bytes:
    """The archive whose parts are in ``folder``. Raises ArchiveError where there is none."""
    parts = sorted(path for path in folder.iterdir() if _PART.fullmatch(path.name)) if folder.is_dir() else []
    if not parts:
        raise ArchiveError(f"{folder} has no parts of an archive: is the volume mounted?")
    return b"".join(part.read_bytes() for part in parts)


def _left_digest(folder: Path) -> str:
    try:
        return (folder / DIGEST_FILE).read_text()
    except OSError as error:
        raise ArchiveError(f"{folder / DIGEST_FILE} cannot be read: {error.strerror or error}") from error


def say_last(words: str, path: Path | None = None) -> None:
    """Leave ``words`` as the container's termination message, as far as they fit; where there is no such file: fine.

    ``path``: a file instead of that one.
    """
    path = path or Path(os.environ.get(LAST_WORDS, "/dev/termination-log"))
    with contextlib.suppress(OSError):
        path.write_bytes(words.encode(errors="backslashreplace")[-LONGEST_WORDS:])
