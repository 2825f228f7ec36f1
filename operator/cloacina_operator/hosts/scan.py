"""Look at one watched folder: which archives lie in it, and what is wrong with the others. Changes nothing."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from cloaca.errors import PackageError
from cloaca.packages.archive import Limits, read_archive
from cloaca.packages.files import check_regular, read_file
from cloacina_operator.core.folder import SUFFIX, ArchiveFile, Identity, SeenFolder

SETTLE = 0.03  # seconds in which a file must not change to count as copied whole
PATIENCE = 2.0  # seconds after which a file that goes on changing is read anyway
LONGEST_URL = 2_048  # characters, as the schema of a package has it

_Signature = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look at a folder found."""

    folder: SeenFolder
    files: tuple[ArchiveFile, ...] = ()
    changing: bool = False  # a file is being written: look again soon


class FolderScan:
    """One watched folder, with what was read in it so far. ``look`` blocks, and is for one thread at a time."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self._limits = limits
        self._url = path.absolute().as_uri()
        self._known: dict[str, tuple[_Signature, ArchiveFile]] = {}
        self._changing: dict[str, float] = {}  # name → when it was first seen to change

    def away(self, why: str) -> Look:
        """What to take for a look that found no folder. ``why`` says what is wrong with it."""
        return Look(folder=SeenFolder(path=shown(str(self.path)), url=self._url, identity=None, trouble=why))

    def look(self) -> Look:
        """What is there now. Raises nothing for what a file system may have or do."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            return self._unlisted(error)
        try:
            return self._listed(descriptor)
        except OSError as error:
            return self._unlisted(error)
        finally:
            os.close(descriptor)

    def _unlisted(self, error: OSError) -> Look:
        return self.away(f"the folder {shown(str(self.path))} cannot be listed: {error.strerror or error}")

    def _listed(self, descriptor: int) -> Look:
        identity = Identity(volume=_volume(descriptor), inode=os.fstat(descriptor).st_ino)
        names = sorted(name for name in os.listdir(descriptor) if name.endswith(SUFFIX) and not name.startswith("."))
        before = {name: _signature(name, descriptor) for name in names}
        if any(self._is_new(name, seen) for name, seen in before.items()):
            time.sleep(SETTLE)
        files = [file for name in names if (file := self._file(name, before[name], descriptor)) is not None]
        self._known = {name: known for name, known in self._known.items() if name in before}
        self._changing = {name: since for name, since in self._changing.items() if name in before}
        folder = SeenFolder(path=shown(str(self.path)), url=self._url, identity=identity)
        return Look(folder=folder, files=tuple(files), changing=bool(self._changing))

    def _is_new(self, name: str, seen: _Signature | OSError) -> bool:
        return not isinstance(seen, OSError) and (name not in self._known or self._known[name][0] != seen)

    def _file(self, name: str, before: _Signature | OSError, folder: int) -> ArchiveFile | None:
        """The file; None: it is gone."""
        known = self._known.get(name)
        try:
            if isinstance(before, OSError):
                raise before
            if known is not None and known[0] == before:
                self._changing.pop(name, None)
                return known[1]
            if self._still_changes(name, before, folder):
                return known[1] if known is not None else self._archive(name, None)
            data = read_file(name, self._limits.packed_bytes, folder=folder)
        except FileNotFoundError as error:
            return self._unusable(name, _dangling(name, folder) or str(error)) if _is_link(name, folder) else None
        except OSError as error:
            return self._unusable(name, error.strerror or str(error))
        if self._still_changes(name, before, folder):
            return known[1] if known is not None else self._archive(name, None)
        self._changing.pop(name, None)
        file = self._read(name, data)
        self._known[name] = (before, file)
        return file

    def _still_changes(self, name: str, before: _Signature, folder: int) -> bool:
        """Whether the file is being written, and has not been for so long that it is read anyway."""
        if _signature(name, folder) == before:
            return False
        return time.monotonic() - self._changing.setdefault(name, time.monotonic()) < PATIENCE

    def _read(self, name: str, data: bytes) -> ArchiveFile:
        """What the file is. One over the limit was read up to it: enough to be refused for that when it is fetched."""
        package = version = None
        try:
            manifest = read_archive(data, self._limits).manifest
            package, version = manifest.package.name, manifest.package.version
        except PackageError:
            pass  # the package's conditions will say what is wrong
        trouble = ""
        if not _is_utf8(name):
            trouble = f"{self._shown(name)}: its name is not UTF-8: rename it"
        elif len(self._file_url(name)) > LONGEST_URL:
            trouble = f"{self._shown(name)}: its path is too long: move it, or give it a shorter name"
        return self._archive(name, f"sha256:{hashlib.sha256(data).hexdigest()}", package, version, trouble)

    def _unusable(self, name: str, why: str) -> ArchiveFile:
        self._changing.pop(name, None)
        self._known.pop(name, None)
        return self._archive(name, None, trouble=f"{self._shown(name)} cannot be read: {why}")

    def _archive(
        self, name: str, digest: str | None, package: str | None = None, version: str | None = None, trouble: str = ""
    ) -> ArchiveFile:
        return ArchiveFile(
            path=self._shown(name),
            url=self._file_url(name),
            digest=digest,
            package=package,
            version=version,
            trouble=trouble,
        )

    def _file_url(self, name: str) -> str:
        return (self.path.absolute() / name).as_uri()

    def _shown(self, name: str) -> str:
        return shown(str(self.path / name))


def shown(path: str) -> str:
    """``path`` for a person: what cannot be printed, or is not UTF-8, is escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _signature(name: str, folder: int) -> _Signature | OSError:
    """What changes with the content of a file. An OSError says why it is none, or why that cannot be learned."""
    try:
        status = os.stat(name, dir_fd=folder)
        check_regular(status.st_mode)
    except OSError as error:
        return error
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _volume(descriptor: int) -> str:
    """The file system that the folder is on. Its own id lasts over reboots; the number of its device need not."""
    number = os.fstatvfs(descriptor).f_fsid
    return f"{number:x}" if number else f"device-{os.fstat(descriptor).st_dev}"


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _dangling(name: str, folder: int) -> str:
    try:
        return f"it is a link to {shown(os.readlink(name, dir_fd=folder))}, which is not there"
    except OSError:
        return ""


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
