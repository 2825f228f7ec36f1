"""What lies in a watched folder never takes a working package away, and never stops the daemon."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from builders import WORKFLOW, archive, declared
from daemon_process import Daemon

from cloaca.resources import CloacinaPackage, ObjectMeta
from cloaca.resources.conditions import find
from cloaca.resources.package import PackageSource, PackageSpec
from cloaca.store import Store

CODE = """
import os
import cloaca

with cloaca.WorkflowBuilder("demo") as builder:
    @cloaca.task(id="only")
    def only(context):
        with open(os.environ["LOADED"], "a") as loaded:
            loaded.write(context["file"] + "\\n")

@cloaca.trigger(name="inbox", poll_interval="200ms", allow_concurrent=True)
def inbox():
    return [cloaca.TriggerResult.fire({"file": name}, key=name) for name in sorted(os.listdir(os.environ["INBOX"]))]
"""
ODD = "odd.cloacina"  # a file name that says nothing of the package in it


def demo(version: str = "1.0.0", name: str = "demo") -> bytes:
    return archive(CODE, name=name, version=version, triggers=[declared("inbox", allow_concurrent=True)])


class Inbox:
    """Files that fire, and what their runs recorded."""

    def __init__(self, root: Path, daemon: Daemon) -> None:
        self.folder, self.loaded = root / "inbox", root / "loaded"
        self.folder.mkdir()
        self.loaded.touch()
        daemon.environment |= {"INBOX": str(self.folder), "LOADED": str(self.loaded)}
        self._daemon = daemon

    async def works(self, *files: str) -> None:
        """Put them in; each file that was ever put in has been loaded once in the end, and none twice."""
        for file in files:
            (self.folder / file).touch()
        wanted = sorted(path.name for path in self.folder.iterdir())

        async def loaded(store: object) -> bool:  # what is looked at is a file
            return len(self.loaded.read_text().split()) >= len(wanted)

        await self._daemon.eventually("the files to be loaded", loaded)
        assert sorted(self.loaded.read_text().split()) == wanted


@pytest.fixture
def inbox(tmp_path: Path, daemon: Daemon) -> Inbox:
    return Inbox(tmp_path, daemon)


async def deployed(daemon: Daemon, inbox: Inbox) -> CloacinaPackage:
    """The package in the file ``odd.cloacina``, working."""
    daemon.start()
    daemon.deploy(demo(), ODD)
    package = await daemon.package(Ready=("True", "Ready"))
    await inbox.works("first")
    return package


def message(package: CloacinaPackage, condition: str = "Ready") -> str:
    found = find(package.status.conditions, condition)
    return "" if found is None else found.message


async def test_a_half_copied_archive_is_a_candidate_also_after_a_restart(daemon: Daemon, inbox: Inbox) -> None:
    package = await deployed(daemon, inbox)
    daemon.deploy(demo()[:400], ODD)
    half = await daemon.package(Ready=("False", "CandidateRefused"))
    assert half.metadata.uid == package.metadata.uid
    await inbox.works("second")
    assert daemon.stop() == 0
    daemon.start()
    await inbox.works("third")
    daemon.deploy(demo()[:500], ODD)  # another half, of which only the store can say whose it is
    await daemon.package(Ready=("False", "CandidateRefused"))
    daemon.deploy(demo("1.0.1"), ODD)
    whole = await daemon.package(Ready=("True", "Ready"))
    assert (whole.metadata.uid, whole.status.active and whole.status.active.version) == (package.metadata.uid, "1.0.1")
    await inbox.works("fourth")


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """The file is there, and opening it would wait for 45 seconds: another program holds a lease on it."""
    lease = os.fork()  # the kernel breaks a lease only for other processes
    if lease == 0:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        path.write_bytes(b"")
        descriptor = os.open(path, os.O_RDWR)
        fcntl.fcntl(descriptor, 1024, fcntl.F_WRLCK)  # F_SETLEASE
        signal.pause()
    try:
        yield
    finally:
        os.kill(lease, signal.SIGKILL)
        os.waitpid(lease, 0)


def _fifo(path: Path, _: ExitStack) -> None:
    os.mkfifo(path)


def _socket(path: Path, stack: ExitStack) -> None:
    listening = stack.enter_context(socket.socket(socket.AF_UNIX))
    folder = os.open(path.parent, os.O_RDONLY)
    stack.callback(os.close, folder)
    listening.bind(f"/proc/self/fd/{folder}/{path.name}")  # the whole path is too long for an address


CASES: dict[str, tuple[Callable[[Path, ExitStack], object], str]] = {
    "a named pipe": (_fifo, "it is a named pipe, not a file"),
    "a socket": (_socket, "it is a socket, not a file"),
    "a device": (lambda path, _: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    "a folder": (lambda path, _: path.mkdir(), "it is a folder, not a file"),
    "a dangling link": (lambda path, _: path.symlink_to("/nowhere"), "it is a link to /nowhere, which is not there"),
    "a link to itself": (lambda path, _: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "a file that gives EIO": (lambda path, _: path.symlink_to("/proc/self/mem"), "Input/output error"),
    "a file that is leased": (lambda path, stack: stack.enter_context(leased(path)), "cannot be read"),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_is_no_readable_file_holds_up_nothing(case: str, daemon: Daemon, inbox: Inbox) -> None:
    make, said = CASES[case]
    package = await deployed(daemon, inbox)
    path = daemon.home.packages / ODD
    with ExitStack() as stack:
        path.unlink()
        make(path, stack)
        told = await daemon.package(Ready=("False", "SourceUnavailable"), Fetched=("False", "SourceUnavailable"))
        assert told.metadata.uid == package.metadata.uid
        assert f"odd.cloacina cannot be read: {said}" in message(told) or said in message(told), message(told)
        assert message(told).endswith("; version 1.0.0 goes on working")
        await inbox.works("second")
        daemon.deploy(archive(WORKFLOW, name="other"), "other.cloacina")  # everything else goes on
        await daemon.package("other", Ready=("True", "Ready"))
        assert daemon.stop() == 0  # SIGTERM is not held up
        daemon.start()
        await daemon.package(Polling=("True", "Polling"), Ready=("False", "SourceUnavailable"))
        await inbox.works("third")
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    daemon.deploy(demo(), ODD)
    back = await daemon.package(Ready=("True", "Ready"), Fetched=("True", "Fetched"))
    assert back.metadata.uid == package.metadata.uid
    await inbox.works("fourth")
    assert daemon.log.count("odd.cloacina cannot be read") == 2  # each daemon said it once
    path.unlink()
    assert await daemon.eventually("the end", lambda store: _is_gone(store, "demo"))


async def _is_gone(store: Store, name: str) -> bool:
    return await store.get(CloacinaPackage, name) is None


async def test_a_file_without_permissions_is_told_on_the_package(
    daemon: Daemon, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and there is no setpriv to take that right away")
        drop = ["setpriv", "--inh-caps=-dac_override,-dac_read_search", "--bounding-set=-dac_override,-dac_read_search"]
        _start_through(monkeypatch, drop)
    package = await deployed(daemon, inbox)
    path = daemon.home.packages / ODD
    path.chmod(0)
    told = await daemon.package(Ready=("False", "SourceUnavailable"))
    assert f"{path} cannot be read: Permission denied" in message(told)
    await inbox.works("second")
    path.chmod(0o600)
    assert (await daemon.package(Ready=("True", "Ready"))).metadata.uid == package.metadata.uid
    daemon.home.packages.chmod(0)
    told = await daemon.package(Ready=("False", "SourceUnavailable"))
    assert f"the folder {daemon.home.packages} cannot be listed: Permission denied" in message(told)
    await inbox.works("third")
    daemon.home.packages.chmod(0o700)
    await daemon.package(Ready=("True", "Ready"))
    await inbox.works("fourth")


def _start_through(monkeypatch: pytest.MonkeyPatch, prefix: list[str]) -> None:
    """Have the daemon started by another program, which turns into it."""
    popen = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return popen([*prefix, *command] if "cloacina_operator.hosts.daemon" in command else command, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "Popen", start)


AWAY: dict[str, Callable[[Path], object]] = {
    "moved away": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "replaced by a file": lambda folder: (folder.rename(folder.with_name("elsewhere")), folder.touch()),
    "replaced by an empty one": lambda folder: (folder.rename(folder.with_name("elsewhere")), folder.mkdir()),
    "replaced by a dangling link": lambda folder: (
        folder.rename(folder.with_name("elsewhere")),
        folder.symlink_to("/nowhere"),
    ),
}


@pytest.mark.parametrize("case", AWAY)
async def test_a_folder_that_is_away_takes_no_package_with_it(case: str, daemon: Daemon, inbox: Inbox) -> None:
    package = await deployed(daemon, inbox)
    folder = daemon.home.packages
    AWAY[case](folder)
    told = await daemon.package(Ready=("False", "SourceUnavailable"))
    assert str(folder) in message(told)
    await inbox.works("second")
    assert daemon.stop() == 0
    if case != "replaced by a file" and case != "replaced by a dangling link":  # then the home cannot be used
        daemon.start()
        await daemon.package(Ready=("False", "SourceUnavailable"), Polling=("True", "Polling"))
        await inbox.works("third")
        assert daemon.stop() == 0
    daemon.start()
    if folder.is_dir() and not folder.is_symlink():
        folder.rmdir()
    else:
        folder.unlink()
    folder.with_name("elsewhere").rename(folder)
    back = await daemon.package(Ready=("True", "Ready"))
    assert back.metadata.uid == package.metadata.uid
    await inbox.works("fourth")


async def test_a_folder_that_is_made_anew_is_watched_again(daemon: Daemon, inbox: Inbox) -> None:
    package = await deployed(daemon, inbox)
    folder = daemon.home.packages
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()
    await daemon.package(Ready=("False", "SourceUnavailable"))
    daemon.deploy(archive(WORKFLOW, name="other"), "other.cloacina")
    await daemon.package("other", Ready=("True", "Ready"))
    await inbox.works("second")
    daemon.deploy(demo(), ODD)  # as when a folder is restored, file by file
    assert (await daemon.package(Ready=("True", "Ready"))).metadata.uid == package.metadata.uid
    (folder / ODD).unlink()
    assert await daemon.eventually("the end", lambda store: _is_gone(store, "demo"))


async def test_a_volume_that_is_unmounted_takes_no_package_with_it(
    daemon: Daemon, inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root and mount namespaces, to mount a volume")
    volume = tmp_path / "volume"
    volume.mkdir()
    _start_through(monkeypatch, ["unshare", "--mount", "--propagation", "private"])
    daemon.options = ["--watch-dir", str(volume)]
    daemon.start()
    await daemon.eventually("the daemon", _ready(daemon))

    def inside(*command: str) -> None:
        assert daemon.process is not None
        subprocess.run(["nsenter", "-t", str(daemon.process.pid), "-m", *command], check=True)

    (tmp_path / "demo").write_bytes(demo())
    inside("mount", "-t", "tmpfs", "none", str(volume))  # the watch is on the folder below
    inside("cp", str(tmp_path / "demo"), str(volume / ODD))
    package = await daemon.package(Ready=("True", "Ready"))
    await inbox.works("first")
    inside("umount", "--lazy", str(volume))
    told = await daemon.package(Ready=("False", "SourceUnavailable"))
    assert "is its volume mounted?" in message(told)
    await inbox.works("second")
    assert daemon.stop() == 0
    (volume / "x.cloacina").write_bytes(archive(WORKFLOW, name="other"))  # what lies below a mount point is no proof
    daemon.start()
    await daemon.package("other", Ready=("True", "Ready"))
    told = await daemon.package(Ready=("False", "SourceUnavailable"))
    assert told.metadata.uid == package.metadata.uid
    await inbox.works("third")


def _ready(daemon: Daemon) -> Callable[[object], object]:
    async def ready(store: object) -> bool:  # the log says it
        return "ready" in daemon.log

    return ready


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"caf\xe9.cloacina"], ids=["any file", "an archive"])
async def test_a_name_that_is_not_utf_8_ends_no_daemon(name: bytes, daemon: Daemon, inbox: Inbox) -> None:
    package = await deployed(daemon, inbox)
    path = Path(os.fsdecode(os.fsencode(daemon.home.packages) + b"/" + name))
    for start in range(2):  # it is there when the second daemon starts
        path.write_bytes(demo("2.0.0"))
        if name.endswith(b".cloacina"):
            told = await daemon.package(Ready=("False", "SourceUnavailable"))
            assert r"/caf\xe9.cloacina: its name is not UTF-8: rename it; version 1.0.0 goes on" in message(told)
            assert told.metadata.uid == package.metadata.uid
        if start == 0:  # later the file may be written before the watch begins
            await daemon.eventually("the broken watch to be told", _said(daemon, "cannot tell of changes"))
        daemon.deploy(archive(WORKFLOW, name="other"), "other.cloacina")
        await daemon.package("other", Ready=("True", "Ready"))
        (daemon.home.packages / "other.cloacina").unlink()
        assert await daemon.eventually("the end of the other", lambda store: _is_gone(store, "other"))
        assert daemon.log.count("cannot tell of changes") <= 1
        assert daemon.stop() == 0
        daemon.log_file.write_text("")
        daemon.start()
        await daemon.eventually("the daemon", _ready(daemon))
    path.rename(daemon.home.packages / "new.cloacina") if name.endswith(b".cloacina") else path.unlink()
    await daemon.package(Ready=("True", "Ready"))
    await inbox.works("second")


def _said(daemon: Daemon, words: str) -> Callable[[object], object]:
    async def said(store: object) -> bool:  # the log says it
        return words in daemon.log

    return said


async def test_without_inotify_the_folders_are_looked_at_by_themselves(
    daemon: Daemon, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("inotify is Linux's")
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    held = []
    libc = ctypes.CDLL(None)

    def use_up() -> bool:
        for _ in range(int(limit.read_text()) + 1):
            if (descriptor := libc.inotify_init1(os.O_CLOEXEC)) < 0:
                return True
            held.append(descriptor)
        return False

    if not use_up():
        pytest.skip("the system gives out as many inotify instances as one likes")
    try:
        for left in reversed(range(12)):  # tests beside this one may give one back at any time
            use_up()
            daemon.start()
            try:
                await daemon.eventually("the daemon to say it", _said(daemon, "cannot tell of changes"), patience=8.0)
                break
            except pytest.fail.Exception:
                daemon.stop()
                if not left:
                    raise
        daemon.deploy(demo(), ODD)
        await daemon.package(Ready=("True", "Ready"))
        await inbox.works("first")
        (daemon.home.packages / ODD).unlink()
        assert await daemon.eventually("the end", lambda store: _is_gone(store, "demo"))
        assert daemon.log.count("cannot tell of changes") == 1
        assert daemon.stop() == 0
    finally:
        for descriptor in held:
            os.close(descriptor)


async def test_a_watched_folder_that_is_not_there_stops_nothing(daemon: Daemon, inbox: Inbox, tmp_path: Path) -> None:
    folder = tmp_path / "stick" / "archives"
    daemon.options = ["--watch-dir", str(folder)]
    await deployed(daemon, inbox)
    assert daemon.log.count(f"the folder {folder} cannot be listed: No such file or directory") == 1
    folder.mkdir(parents=True)
    (folder / "other.cloacina").write_bytes(archive(WORKFLOW, name="other"))
    await daemon.package("other", Ready=("True", "Ready"))


async def test_a_folder_that_is_not_watched_any_more_takes_no_package_with_it(
    daemon: Daemon, inbox: Inbox, tmp_path: Path
) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    (folder / ODD).write_bytes(demo())
    daemon.home.root.mkdir()
    daemon.home.config.write_text(f'watch_dirs = ["{folder}"]\n')
    daemon.start()
    package = await daemon.package(Ready=("True", "Ready"))
    await inbox.works("first")
    daemon.home.config.write_text("")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    told = await daemon.package(Ready=("False", "SourceUnavailable"))
    assert f"{folder}, which held odd.cloacina, is not watched any more" in message(told)
    await inbox.works("second")
    daemon.home.config.write_text(f'watch_dirs = ["{folder}"]\n')
    daemon.process.send_signal(signal.SIGHUP)
    assert (await daemon.package(Ready=("True", "Ready"))).metadata.uid == package.metadata.uid


async def test_an_archive_that_is_removed_and_copied_again_fires_nothing_twice(daemon: Daemon, inbox: Inbox) -> None:
    package = await deployed(daemon, inbox)
    elsewhere = daemon.home.root / "elsewhere"
    for number in range(20):  # as `rm x && cp y x` does, and a move from one watched folder to another
        (daemon.home.packages / ODD).rename(elsewhere)
        await asyncio.sleep(0.02 * (number % 4))
        elsewhere.rename(daemon.home.packages / ODD)
    await inbox.works("second")
    assert (await daemon.package(Ready=("True", "Ready"))).metadata.uid == package.metadata.uid


async def test_hidden_files_are_no_archives(daemon: Daemon, inbox: Inbox) -> None:
    await deployed(daemon, inbox)
    daemon.deploy(b"\0\5\26\7\0\2\0\0Mac OS X", "._demo-1.0.0.cloacina")  # as macOS writes beside a file it copies
    daemon.deploy(archive(WORKFLOW, name="other"), "other.cloacina")
    await daemon.package("other", Ready=("True", "Ready"))
    packages = await daemon.eventually("the packages", lambda store: store.list(CloacinaPackage))
    assert [package.name for package in packages] == ["demo", "other"]


async def test_a_file_that_never_stops_changing_holds_up_no_other(daemon: Daemon, inbox: Inbox) -> None:
    daemon.start()
    path = daemon.home.packages / "growing.cloacina"
    daemon.home.packages.mkdir(parents=True, exist_ok=True)
    growing = asyncio.ensure_future(_grow(path))
    try:
        await daemon.eventually("the daemon", _ready(daemon))
        daemon.deploy(demo(), ODD)
        await daemon.package(Ready=("True", "Ready"))
        await inbox.works("first")
    finally:
        growing.cancel()


async def _grow(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        while True:
            file.write(b"x")
            await asyncio.sleep(0.005)


async def test_what_was_unpacked_is_unpacked_again_where_somebody_cleaned_up(daemon: Daemon, inbox: Inbox) -> None:
    await deployed(daemon, inbox)
    shutil.rmtree(daemon.home.unpacked)
    shutil.rmtree(daemon.home.logs)
    await inbox.works("second")
    (unpacked,) = daemon.home.unpacked.iterdir()
    (unpacked / "manifest.json").unlink()  # as cleaners of old files do it, one by one
    await inbox.works("third")
    runs = await daemon.runs(lambda runs: len(runs) == 3 and all(run.status.phase.finished for run in runs))
    assert {(run.status.phase.value, run.status.attempt) for run in runs} == {("Completed", 1)}


async def test_a_package_by_hand_whose_source_is_a_pipe_holds_up_nothing(
    daemon: Daemon, inbox: Inbox, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.cloacina"
    os.mkfifo(pipe)
    await deployed(daemon, inbox)
    source = PackageSource(url=pipe.as_uri())
    await daemon.submit(CloacinaPackage(metadata=ObjectMeta(name="pipe"), spec=PackageSpec(source=source)))
    told = await daemon.package("pipe", Ready=("False", "FetchFailed"))
    assert f"{pipe} cannot be read: it is a named pipe, not a file" in message(told)
    await inbox.works("second")
    assert daemon.stop() == 0


async def test_links_that_are_swapped_as_a_whole_are_followed(daemon: Daemon, inbox: Inbox) -> None:
    """As Kubernetes mounts a ConfigMap, and as tools deploy that keep several releases."""
    folder = daemon.home.packages
    for number, version in ((1, "1.0.0"), (2, "1.1.0")):
        (folder / f"..{number}").mkdir(parents=True)
        (folder / f"..{number}" / ODD).write_bytes(demo(version))
    (folder / "..data").symlink_to("..1")
    (folder / ODD).symlink_to(f"..data/{ODD}")
    daemon.start()
    before = await daemon.package(Ready=("True", "Ready"))
    await inbox.works("first")
    (folder / "..new").symlink_to("..2")
    (folder / "..new").replace(folder / "..data")
    shutil.rmtree(folder / "..1")

    async def updated(store: Store) -> bool:
        package = await store.get(CloacinaPackage, "demo")
        active = None if package is None else package.status.active
        return active is not None and active.version == "1.1.0"

    await daemon.eventually("the update", updated)
    assert (await daemon.package(Ready=("True", "Ready"))).metadata.uid == before.metadata.uid
    await inbox.works("second")
