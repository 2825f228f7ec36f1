"""Read and unpack archives: bounded, and never outside the folder. Runs nothing of what it reads."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from cloaca.authoring.value import Value
from cloaca.errors import ArchiveError
from cloaca.packages.host import VENDOR
from cloaca.packages.load import MANIFEST_NAME
from cloaca.packages.stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Self

    from cloaca.packages.manifest import Manifest

_LONGEST_PATH = 1_024
_FILE_OVERHEAD = 4_096  # bytes of headers and padding that a member may take besides its content
_ADVICE = "pack the folder again"
_IMPORTABLE = (".py", ".pyc", ".so", ".pyd")


class Limits(Value):
    """What an archive may be at most."""

    packed_bytes: int = 16 * 1024 * 1024
    unpacked_bytes: int = 256 * 1024 * 1024
    files: int = 10_000
    source_bytes: int = 2 * 1024 * 1024
    """Of the Python files outside ``vendor/`` together: they are parsed, which takes several hundred times as much."""


class Archive(Value):
    """What an archive holds, read without unpacking it."""

    digest: str
    """``sha256:…`` of the packed bytes."""
    manifest: Manifest
    files: tuple[str, ...]
    """Paths of its files, sorted."""
    sources: Mapping[str, bytes]
    """Path → content of its Python files, ``vendor/`` left out."""

    def __repr__(self) -> str:  # without the sources
        return f"Archive(digest={self.digest!r}, manifest={self.manifest!r}, files={self.files!r})"


def digest_of(data: bytes) -> str:
    """``sha256:…``, under which the bytes are kept."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def read_archive(data: bytes, limits: Limits | None = None) -> Archive:
    """What ``data`` holds. Raises ArchiveError, or ManifestError with every fault of the manifest."""
    from cloaca.packages.manifest import parse_manifest  # a run only unpacks, and would pay for this import

    manifest: bytes | None = None
    files, sources = [], {}
    for member in _members(data, limits or Limits()):
        files.append(member.path)
        if member.path == MANIFEST_NAME:
            manifest = member.content
        elif member.path.endswith(".py") and not member.path.startswith(f"{VENDOR}/"):
            sources[member.path] = member.content
    if manifest is None:
        raise ArchiveError(f"the archive has no {MANIFEST_NAME} at its root: make it with `cloaca pack`")
    return Archive(
        digest=digest_of(data), manifest=parse_manifest(manifest), files=tuple(sorted(files)), sources=sources
    )


def unpack(data: bytes, folder: Path, limits: Limits | None = None) -> None:
    """Write the archive's files below ``folder``, all of them or nothing; there already: fine. Raises ArchiveError."""
    if folder.is_dir():
        return
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o755)
    try:
        for member in _members(data, limits or Limits()):
            path = partial / member.path
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            with path.open("xb") as file:
                file.write(member.content)
            path.chmod(0o644)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was quicker, with the same bytes
                raise
    except OSError as error:
        raise ArchiveError(f"the archive cannot be unpacked to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Member(NamedTuple):
    """One file of an archive; a link is the file that it names."""

    path: str
    content: bytes


def _members(data: bytes, limits: Limits) -> Iterator[_Member]:
    """Every file in turn, each checked before it is given out. Raises ArchiveError at the first that is not safe."""
    if not data:
        raise ArchiveError("the archive is empty (0 bytes): copy it again")
    if len(data) > limits.packed_bytes:
        raise ArchiveError(f"the archive is {len(data):,} bytes, over the limit of {limits.packed_bytes:,}")
    stream = _Bounded(data, limits)
    links: list[tuple[str, str]] = []
    reading = _Reading(limits)
    try:
        with tarfile.open(
            fileobj=cast(IO[bytes], stream), mode="r|", encoding="utf-8", errors="strict", tarinfo=_Header
        ) as tar:
            for info in tar:
                path = reading.checked(info)
                if path is None:
                    continue
                if info.issym() or info.islnk():
                    links.append((path, reading.target(path, info)))
                    continue
                file = tar.extractfile(info)
                content = b"" if file is None else file.read()
                if len(content) != info.size:
                    raise ArchiveError(f"the archive is truncated: {path} ends early; copy or pack it again")
                reading.contents[path] = content
                yield _Member(path=path, content=content)
    except (tarfile.TarError, UnicodeDecodeError, EOFError, ValueError) as error:
        if isinstance(error, ArchiveError):
            raise
        if not reading.seen:
            raise ArchiveError("the file is not a tar archive: make it with `cloaca pack` or `tar -cjf`") from error
        raise ArchiveError(f"the archive is damaged ({error}): copy or pack it again") from error
    if not reading.seen:
        raise ArchiveError("the file is not a tar archive: make it with `cloaca pack` or `tar -cjf`")
    for path, target in links:
        yield _Member(path=path, content=reading.linked(path, target))


class _Reading:
    """What was read of one archive so far, and the rules that the next member must keep."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._total = 0
        self._folders: set[str] = set()
        self._folded: dict[str, str] = {}  # path without regard to case -> path
        self.seen = 0
        self.contents: dict[str, bytes] = {}

    def checked(self, info: tarfile.TarInfo) -> str | None:
        """The path of a file or link, if it is safe; None for a folder, which is made when a file needs it."""
        self.seen += 1
        if self.seen > self._limits.files:
            raise ArchiveError(f"the archive has more than {self._limits.files:,} files, which is the limit")
        path = _safe_path(info.name)
        if info.isdir():
            return None
        if not (info.isreg() or info.issym() or info.islnk()):
            raise ArchiveError(f"{info.name}: the archive may hold files and folders only, no devices and pipes")
        if path is None:
            raise ArchiveError(f"{info.name!r}: a file of the archive has no name; {_ADVICE}")
        if info.isreg():
            self._add(path, info.size)
        known = self._folded.setdefault(_folded(path), path)
        if known != path:
            raise ArchiveError(f"{path}: differs from {known} in case only or Unicode form, which some ignore")
        if path in self._folders or path in self.contents:
            raise ArchiveError(f"{path}: stands twice in the archive; {_ADVICE}")
        for parent in PurePosixPath(path).parents:
            if str(parent) in self.contents:
                raise ArchiveError(f"{path}: stands below {parent}, which is a file; {_ADVICE}")
            self._folders.add(str(parent))
        check_shadowing(path)
        self.contents.setdefault(path, b"")
        return path

    def target(self, path: str, info: tarfile.TarInfo) -> str:
        """The path that a link names, if it stays in the archive."""
        base = PurePosixPath() if info.islnk() else PurePosixPath(path).parent
        parts: list[str] = []
        if not info.linkname.startswith("/"):
            for part in (*base.parts, *PurePosixPath(info.linkname).parts):
                if part != "..":
                    parts.append(part)
                elif parts:
                    parts.pop()
                else:
                    parts = []
                    break
        if not parts:
            raise ArchiveError(f"{path}: is a link to {info.linkname!r}, which leaves the archive")
        return "/".join(parts)

    def linked(self, path: str, target: str) -> bytes:
        """The content of the file that a link names: links become copies, so that nothing unpacked is a link."""
        content = self.contents.get(target)
        if content is None or target == path:
            raise ArchiveError(f"{path}: is a link to {target!r}, which is no file of the archive; {_ADVICE}")
        self._add(path, len(content))
        return content

    def _add(self, path: str, size: int) -> None:
        self._total += size
        if self._total > self._limits.unpacked_bytes:
            raise ArchiveError(
                f"{path}: with it the archive unpacks to {self._total:,} bytes, over the limit of "
                f"{self._limits.unpacked_bytes:,}"
            )


class _Header(tarfile.TarInfo):
    """A header that must be whole: tarfile takes a tar that was cut off between two files for a shorter one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) != tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends early")
        return super().frombuf(buf, encoding, errors)


class _Bounded(Stream):
    """A stream that ends with an error when more comes out of it than the limits allow, whatever headers claim."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        super().__init__(data)
        self._most = limits.unpacked_bytes + limits.files * _FILE_OVERHEAD

    def read(self, size: int) -> bytes:
        if self.consumed + size > self._most + _FILE_OVERHEAD * 16:
            raise ArchiveError(f"the archive unpacks to more than the limit of {self._most:,} bytes")
        return super().read(size)


def _safe_path(name: str) -> str | None:
    """``name`` without what means nothing (``./``); None: the root itself. Raises ArchiveError for one that leaves."""
    if name.startswith("/"):
        raise ArchiveError(f"{name}: is an absolute path; an archive holds relative ones only")
    if "\\" in name or "\0" in name or len(name) > _LONGEST_PATH:
        raise ArchiveError(f"{name[:200]!r}: is no path that every system has; rename the file")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveError(f"{name}: leaves the archive's folder ('..')")
    return "/".join(parts) or None


def _folded(path: str) -> str:
    """What a file system that ignores case and Unicode forms takes ``path`` for."""
    return path.casefold() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def check_shadowing(path: str) -> None:
    """Refuse modules at the root or in ``vendor/`` that take the place of one of the standard library."""
    parts = path.split("/")
    if parts[0] == VENDOR:
        parts = parts[1:]
    if not parts or not path.endswith(_IMPORTABLE):
        return
    module = parts[0].split(".")[0]
    if module in sys.stdlib_module_names:
        raise ArchiveError(f"{path}: a module named {module!r} would shadow the standard library's: rename it")
