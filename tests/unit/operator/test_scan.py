"""What one look at a folder finds, on a real file system."""

from __future__ import annotations

import os
from pathlib import Path

from cloacina_operator.core.folder import ArchiveFile
from cloacina_operator.hosts.scan import LONGEST_URL, PATIENCE, FolderScan, shown

from cloaca.packages.archive import Limits, digest_of


def settled(scan: FolderScan) -> dict[str, ArchiveFile]:
    """File name → what it is, once nothing changes any more."""
    while (look := scan.look()).changing:
        pass
    return {file.path.rpartition("/")[2]: file for file in look.files}


def test_a_file_that_is_overwritten_with_as_many_bytes_and_its_old_time_is_read_again(tmp_path: Path) -> None:
    path, scan = tmp_path / "x.cloacina", FolderScan(tmp_path, Limits())
    path.write_bytes(b"a" * 100)
    os.utime(path, ns=(0, 0))
    assert settled(scan)["x.cloacina"].digest == digest_of(b"a" * 100)
    path.write_bytes(b"b" * 100)
    os.utime(path, ns=(0, 0))  # as `cp -p` and `rsync --times` leave it
    assert settled(scan)["x.cloacina"].digest == digest_of(b"b" * 100)


def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    scan = FolderScan(tmp_path, Limits())
    (tmp_path / "x.cloacina").write_bytes(b"a")
    first = settled(scan)["x.cloacina"]
    assert settled(scan)["x.cloacina"] is first


def test_only_files_of_that_ending_that_are_not_hidden_are_archives(tmp_path: Path) -> None:
    for name in ("x.cloacina", ".x.cloacina", "._x.cloacina", ".cloacina", "x.cloacina.tmp", "x.txt"):
        (tmp_path / name).write_bytes(b"")
    assert list(settled(FolderScan(tmp_path, Limits()))) == ["x.cloacina"]


def test_a_file_that_goes_on_changing_counts_as_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.cloacina"
    path.write_bytes(b"a")
    changing = Changing(tmp_path, Limits())
    assert settled(changing)["x.cloacina"].digest == digest_of(b"a")
    path.write_bytes(b"ab")
    changing.touch = path
    look = changing.look()
    assert (look.changing, look.files[0].digest) == (True, digest_of(b"a"))
    changing._changing["x.cloacina"] -= PATIENCE  # it has gone on for long enough
    digest = changing.look().files[0].digest
    assert digest == digest_of(path.read_bytes()[:-1])  # the last byte came after it was read


class Changing(FolderScan):
    """Something is written to a file just before it is looked at for the second time."""

    touch: Path | None = None

    def _still_changes(self, name: str, before: tuple[int, int, int, int], folder: int) -> bool:
        if self.touch is not None:
            with self.touch.open("ab") as file:
                file.write(b"x")
        return super()._still_changes(name, before, folder)


def test_a_path_that_no_url_of_a_package_can_hold_is_told(tmp_path: Path) -> None:
    folder = tmp_path
    while len(folder.as_uri()) <= LONGEST_URL:
        folder /= "ä" * 100
    folder.mkdir(parents=True)
    (folder / "x.cloacina").write_bytes(b"")
    assert "its path is too long: move it" in settled(FolderScan(folder, Limits()))["x.cloacina"].trouble


def test_a_folder_that_cannot_be_listed_is_away_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = {
        name: FolderScan(tmp_path / name, Limits()).look().folder.trouble.removeprefix(f"the folder {tmp_path}/")
        for name in ("none", "file")
    }
    assert said == {
        "none": "none cannot be listed: No such file or directory",
        "file": "file cannot be listed: Not a directory",
    }


def test_a_path_is_shown_so_that_it_can_be_printed() -> None:
    assert shown("/tmp/café.cloacina") == "/tmp/café.cloacina"
    assert shown(os.fsdecode(b"/tmp/caf\xe9.cloacina")) == r"/tmp/caf\xe9.cloacina"
    assert shown("/tmp/a\nb.cloacina") == r"/tmp/a\nb.cloacina"
