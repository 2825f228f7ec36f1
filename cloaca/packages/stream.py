"""Decompress an archive's bytes piece by piece, and never more of them than allowed. Knows nothing of tar."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol

from cloaca.errors import ArchiveError

try:
    zstd: Any = import_module("compression.zstd")  # Python ≥ 3.14 has it
except ImportError:
    zstd = None

_DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
if zstd is not None:
    _DAMAGE += (zstd.ZstdError,)

_PIECE = 256 * 1024
_FED = 4096  # little, since what a stream leaves over is copied once for each of the streams
_STREAMS = 10_000  # bgzip needs one for 64 KiB
_LZMA_MEMORY = 128 * 1024 * 1024  # xz -9 needs 65 MiB; a header may claim 4 GiB


class _Decompressor(Protocol):
    """What ``bz2``, ``lzma`` and ``compression.zstd`` have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """``zlib`` with the interface of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)


def _zstd() -> _Decompressor:
    if zstd is None:
        raise ArchiveError(
            "the archive is compressed with zstd, which Python reads from 3.14 on: pack it with bzip2 (tar -cjf)"
        )
    decompressor: _Decompressor = zstd.ZstdDecompressor()
    return decompressor


_BY_MAGIC: tuple[tuple[bytes, str, Callable[[], _Decompressor]], ...] = (
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\x1f\x8b", "gzip", _Gzip),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)


class Truncated(ArchiveError):
    """The bytes end before the archive does."""


class Stream:
    """Reads the decompressed bytes of ``data`` in order, holding a piece of them at a time."""

    def __init__(self, data: bytes) -> None:
        self._pieces = _pieces(data)
        self._ready = b""
        self._position = 0
        self.consumed = 0
        """How many bytes were read so far."""

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer at the end only. Raises ArchiveError for damaged data."""
        parts = []
        missing = size
        while missing:
            if self._position == len(self._ready):
                following = next(self._pieces, None)
                if following is None:
                    break
                self._ready, self._position = following, 0
            part = self._ready[self._position : self._position + missing]
            self._position += len(part)
            missing -= len(part)
            parts.append(part)
        self.consumed += size - missing
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_exactly(self, size: int) -> bytes:
        """The next ``size`` bytes. Raises Truncated where there are fewer."""
        data = self.read(size)
        if len(data) != size:
            raise Truncated("the archive is truncated: it ends in the middle; copy or pack it again")
        return data


def _pieces(data: bytes) -> Iterator[bytes]:
    for magic, name, decompressor in _BY_MAGIC:
        if data.startswith(magic):
            return _decompressed(data, name, decompressor)
    return (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))


def _decompressed(data: bytes, name: str, new: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Stream after stream: ``cat a.bz2 b.bz2`` is one file to every tool."""
    position = 0
    for _ in range(_STREAMS):
        decompressor = new()
        while not decompressor.eof:
            given = data[position : position + _FED] if decompressor.needs_input else b""
            exhausted = decompressor.needs_input and not given
            position += len(given)
            try:
                piece = decompressor.decompress(given, _PIECE)
            except _DAMAGE as error:
                raise ArchiveError(f"the archive's {name} data is damaged ({error}): copy or pack it again") from error
            if piece:
                yield piece
            elif exhausted and not decompressor.eof:
                raise Truncated(f"the archive is truncated: its {name} data ends early; copy or pack it again")
        position -= len(decompressor.unused_data)
        if position == len(data) or (data[position] == 0 and not data[position:].strip(b"\0")):
            return  # zeros are padding, as tapes and xz have it
    raise ArchiveError(f"the archive is made of more than {_STREAMS} {name} streams: pack it again")
