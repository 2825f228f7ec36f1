"""Reading and unpacking: what is refused, and that nothing lands outside the folder."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import archive

from cloaca.errors import ArchiveError
from cloaca.packages.archive import Limits, read_archive, unpack

GOOD = archive("import cloaca\n")
PLAIN = bz2.decompress(GOOD)


def with_member(path: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """The good archive with one more member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(PLAIN)) as good, tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in good:
            tar.addfile(member, good.extractfile(member))
        info = tarfile.TarInfo(path)
        info.type, info.linkname, info.size = kind, link, len(data)
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def with_two(*paths: str) -> bytes:
    """The good archive with these empty files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(PLAIN)) as good, tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in good:
            tar.addfile(member, good.extractfile(member))
        for path in paths:
            tar.addfile(tarfile.TarInfo(path))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "compress", [bytes, bz2.compress, gzip.compress, lzma.compress], ids=["plain", "bzip2", "gzip", "xz"]
)
def test_any_compression_that_tar_knows_is_read(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = compress(PLAIN)
    read = read_archive(data)
    assert (read.files, dict(read.sources)) == (
        ("demo/__init__.py", "manifest.json"),
        {"demo/__init__.py": b"import cloaca\n"},
    )
    unpack(data, tmp_path / "package")
    assert (tmp_path / "package" / "demo" / "__init__.py").read_bytes() == b"import cloaca\n"


REFUSED = {
    "empty": (b"", "is empty"),
    "text": (b"no archive\n" * 200, "not a tar archive"),
    "cut off in a header": (PLAIN[:1400], "it ends early"),
    "cut off in a file": (PLAIN[:600], "the archive is damaged"),
    "cut off between files": (PLAIN[:2048], "it ends early"),
    "cut off, compressed": (GOOD[:-20], "the archive is truncated"),
    "parent": (with_member("../evil", b"x"), "leaves the archive's folder"),
    "parent inside": (with_member("demo/../../evil", b"x"), "leaves the archive's folder"),
    "absolute": (with_member("/tmp/evil", b"x"), "is an absolute path"),
    "backslash": (with_member("demo\\evil", b"x"), "no path that every system has"),
    "link out": (with_member("demo/link", kind=tarfile.SYMTYPE, link="../../etc/passwd"), "leaves the archive"),
    "absolute link": (with_member("demo/link", kind=tarfile.SYMTYPE, link="/etc/passwd"), "leaves the archive"),
    "hard link out": (with_member("demo/link", kind=tarfile.LNKTYPE, link="../evil"), "leaves the archive"),
    "link to nothing": (with_member("demo/link", kind=tarfile.SYMTYPE, link="none.py"), "no file of the archive"),
    "device": (with_member("demo/null", kind=tarfile.CHRTYPE), "no devices"),
    "pipe": (with_member("demo/pipe", kind=tarfile.FIFOTYPE), "no devices"),
    "twice": (with_member("demo/__init__.py", b"x"), "stands twice"),
    "case": (with_member("Demo/__init__.py", b"x"), "differs from demo/__init__.py in case only"),
    "Unicode form": (
        with_two("demo/caf\u00e9.txt", "demo/cafe\u0301.txt"),
        "differs from demo/caf\u00e9.txt in case only or Unicode form",
    ),
    "below a file": (with_member("demo/__init__.py/x.py", b"x"), "which is a file"),
    "standard library": (with_member("json.py"), "would shadow the standard library's"),
    "standard library, vendored": (with_member("vendor/json/__init__.py"), "would shadow the standard library's"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=list(REFUSED))
def test_an_archive_that_is_not_safe_is_refused_and_leaves_nothing(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=words):
        read_archive(data)
    with pytest.raises(ArchiveError, match=words):
        unpack(data, tmp_path / "inside" / "package")
    assert [path for path in tmp_path.rglob("*") if path.name != "inside"] == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(packed_bytes=100), "over the limit of 100"),
        (Limits(unpacked_bytes=100), "over the limit of 100"),
        (Limits(files=1), "more than 1 files"),
    ],
    ids=["packed", "unpacked", "files"],
)
def test_more_than_the_limits_is_refused(limits: Limits, words: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=words):
        unpack(GOOD, tmp_path / "package", limits)
    assert list(tmp_path.iterdir()) == []


def test_a_link_inside_becomes_a_copy(tmp_path: Path) -> None:
    unpack(with_member("demo/again.py", kind=tarfile.SYMTYPE, link="__init__.py"), tmp_path / "package")
    copy = tmp_path / "package" / "demo" / "again.py"
    assert (copy.is_symlink(), copy.read_bytes()) == (False, b"import cloaca\n")


def test_unpacking_twice_is_fine_and_keeps_the_first(tmp_path: Path) -> None:
    unpack(GOOD, tmp_path / "package")
    (tmp_path / "package" / "mark").write_text("")
    unpack(GOOD, tmp_path / "package")
    assert (tmp_path / "package" / "mark").exists()
