"""Make an unpacked package of a path that a person gives, an archive or a folder. Runs nothing of it but to pack it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloaca.errors import CloacaError
from cloaca.packages.archive import Limits, read_archive, unpack
from cloaca.packages.manifest import Manifest
from cloaca.packages.scratch import scratch_folder

SUFFIX = ".cloacina"


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A package as files, for as long as the command runs."""

    root: Path
    manifest: Manifest
    scratch: Path
    """An empty folder for what the command needs beside it."""


def is_path(word: str) -> bool:
    """Whether ``word`` names a file or folder rather than a deployed package."""
    return os.sep in word or word.endswith(SUFFIX) or word in (".", "..") or Path(word).exists()


def archive_bytes(path: Path, limits: Limits) -> bytes:
    """The archive at ``path``; of a folder, the one that ``pack`` makes of it. Raises PackageError, CloacaError."""
    if path.is_dir():
        from cloaca.packages.build import build_package

        with scratch_folder() as folder:
            return build_package(path, folder).path.read_bytes()
    try:
        with path.open("rb") as file:
            return file.read(limits.packed_bytes + 1)
    except OSError as error:
        raise CloacaError(
            f"{path}: {error.strerror or error}: give an archive ({SUFFIX}) or the folder of a package"
        ) from error


@contextmanager
def unpacked(path: Path) -> Iterator[Unpacked]:
    """The package at ``path``, in a folder that goes with the block. Raises PackageError, CloacaError."""
    limits = Limits()
    with scratch_folder() as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        data = archive_bytes(path, limits)
        manifest = read_archive(data, limits).manifest
        root = folder / "package"
        unpack(data, root, limits)
        yield Unpacked(root=root, manifest=manifest, scratch=scratch)


def relative(text: str, package: Unpacked) -> str:
    """``text``, such as a traceback, with the paths of the package's files as in its archive."""
    return text.replace(f"{package.root.resolve()}{os.sep}", "")
