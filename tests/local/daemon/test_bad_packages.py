"""Archives that must be refused: each with a reason and words in the package's conditions, and nothing left behind."""

from __future__ import annotations

import bz2
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources.conditions import find

TRIGGER = """
@cloaca.trigger(name="{name}", poll_interval="200ms")
def watch():
    return cloaca.TriggerResult.skip()
"""


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar of just these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def with_member(path: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A good archive with one more member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive(WORKFLOW))) as good, tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in good:
            tar.addfile(member, good.extractfile(member))
        info = tarfile.TarInfo(path)
        info.type, info.linkname, info.size = kind, link, len(data)
        tar.addfile(info, io.BytesIO(data))
    return bz2.compress(buffer.getvalue())


def bomb() -> bytes:
    """10 GB of zeros in some kilobytes."""
    header = tarfile.TarInfo("demo/zeros")
    header.size = 10 * 1000**3
    block = bz2.compress(bytes(100_000_000))
    return bz2.compress(header.tobuf()) + block * 100


BAD: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty file": (lambda: b"", "ArchiveInvalid", "empty"),
    "not a tar": (lambda: b"this is no archive at all\n" * 100, "ArchiveInvalid", ""),
    "truncated": (lambda: archive(WORKFLOW)[:-60], "ArchiveInvalid", ""),
    "no manifest": (lambda: packed((tarfile.TarInfo("demo/__init__.py"), b"")), "ArchiveInvalid", "manifest.json"),
    "manifest not JSON": (lambda: packed((tarfile.TarInfo("manifest.json"), b"{")), "ManifestInvalid", "JSON"),
    "code that takes all memory": (lambda: archive(WORKFLOW + "a=[[]]\n" * 140_000), "NamesDisagree", "too large"),
    "manifest rule": (lambda: archive(WORKFLOW, tasks=[]), "ManifestInvalid", "NoTasks"),
    "declared, not in the code": (
        lambda: archive(WORKFLOW, triggers=[declared("watch")]),
        "NamesDisagree",
        "watch",
    ),
    "in the code, not declared": (
        lambda: archive(WORKFLOW + TRIGGER.format(name="watch")),
        "NamesDisagree",
        "watch",
    ),
    "misspelt": (
        lambda: archive(WORKFLOW + TRIGGER.format(name="inbox_wacther"), triggers=[declared("inbox_watcher")]),
        "NamesDisagree",
        "did you mean",
    ),
    "import error": (lambda: archive("import nothing_of_that_name\n" + WORKFLOW), "ImportFailed", "demo/__init__.py"),
    "import that hangs": (lambda: archive(WORKFLOW + "\ntime.sleep(600)\n"), "ImportTimedOut", "longer than 2 s"),
    "import that exits": (lambda: archive(WORKFLOW + "\nos._exit(3)\n"), "ImportCrashed", "exit code 3"),
    "path traversal": (lambda: with_member("../evil", b"x"), "ArchiveInvalid", "../evil"),
    "absolute path": (lambda: with_member("/tmp/evil", b"x"), "ArchiveInvalid", "/tmp/evil"),
    "symlink escape": (
        lambda: with_member("demo/link", kind=tarfile.SYMTYPE, link="../../../etc/passwd"),
        "ArchiveInvalid",
        "demo/link",
    ),
    "bomb": (bomb, "ArchiveInvalid", "limit"),
    "module named json": (lambda: with_member("json/__init__.py", b""), "ArchiveInvalid", "json"),
}


@pytest.mark.parametrize(("make", "reason", "words"), BAD.values(), ids=list(BAD))
async def test_a_bad_archive_is_refused_with_its_reason(
    daemon: Daemon, tmp_path: Path, make: Callable[[], bytes], reason: str, words: str
) -> None:
    daemon.home.root.mkdir()
    daemon.home.config.write_text('import_timeout = "2s"\n')
    daemon.deploy(make())
    daemon.start()
    package = await daemon.package(Ready=("False", reason), Stalled=("True", reason))
    ready = find(package.status.conditions, "Ready")
    assert ready is not None
    assert words in ready.message
    assert package.status.active is None
    assert package.status.history[0].accepted is False
    assert not [path for path in tmp_path.rglob("*") if path.name in ("evil", "zeros")]
    assert not Path("/tmp/evil").exists()
    assert daemon.stop() == 0


async def test_the_traceback_of_a_failed_import_is_in_the_condition(daemon: Daemon) -> None:
    daemon.deploy(archive(WORKFLOW + "\ndef fail():\n    raise RuntimeError('not today')\nfail()\n"))
    daemon.start()
    package = await daemon.package(Agreed=("False", "ImportFailed"))
    agreed = find(package.status.conditions, "Agreed")
    assert agreed is not None
    assert "RuntimeError: not today" in agreed.message
    assert 'File "demo/__init__.py"' in agreed.message
