"""Folders that other users may write to: which ones a daemon refuses, and what it says."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cloacina_operator.hosts.folder_permissions import refuse_writable_by_others
from cloacina_operator.settings import DaemonSettings, read_settings

from cloaca.errors import CloacaError
from cloaca.home import Home

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
SOMEBODY = 54_321


@pytest.fixture
def settings(tmp_path: Path) -> DaemonSettings:
    """A home that is in order, and a folder to watch."""
    home = Home(tmp_path / "parent" / "home")
    for folder in (home.root.parent, home.root, home.packages, home.unpacked, tmp_path / "watched"):
        folder.mkdir(mode=0o755)
    return DaemonSettings(home=home, watch_dirs=(tmp_path / "watched",))


def refused(settings: DaemonSettings, *, by_option: bool = False) -> str:
    """What is said; empty: nothing is wrong."""
    try:
        refuse_writable_by_others(settings, by_option=by_option)
    except CloacaError as error:
        return str(error)
    return ""


Folder = Callable[[DaemonSettings], Path]
HOME: Folder = lambda settings: settings.home.root  # noqa: E731  # a table of where
PACKAGES: Folder = lambda settings: settings.home.packages  # noqa: E731
UNPACKED: Folder = lambda settings: settings.home.unpacked  # noqa: E731
PARENT: Folder = lambda settings: settings.home.root.parent  # noqa: E731
WATCHED: Folder = lambda settings: settings.watch_dirs[0]  # noqa: E731


@pytest.mark.parametrize(
    "folder",
    [HOME, PACKAGES, UNPACKED, PARENT, WATCHED],
    ids=["home", "packages", "unpacked", "parent", "watched"],
)
@pytest.mark.parametrize("mode", [0o757, 0o777], ids=oct)
def test_a_folder_that_others_may_write_to_is_refused(folder: Folder, mode: int, settings: DaemonSettings) -> None:
    assert refused(settings) == ""
    path = folder(settings)
    path.chmod(mode)
    assert f"  {path} (mode {mode:04o}) can be written by others: run `chmod go-w {path}`\n" in refused(settings)
    path.chmod(0o755)
    assert refused(settings) == ""


@AS_ROOT
@pytest.mark.parametrize("group", [0, SOMEBODY], ids=["root's", "another"])
def test_a_folder_that_a_group_may_write_to_is_refused(group: int, settings: DaemonSettings) -> None:
    os.chown(settings.home.packages, 0, group)
    settings.home.packages.chmod(0o775)
    assert f"{settings.home.packages} (mode 0775) can be written by others" in refused(settings)


@AS_ROOT
@pytest.mark.parametrize("folder", [HOME, PACKAGES, PARENT, WATCHED], ids=["home", "packages", "parent", "watched"])
def test_a_folder_of_another_user_is_refused(folder: Folder, settings: DaemonSettings) -> None:
    path = folder(settings)
    os.chown(path, SOMEBODY, 0)
    assert f"  {path} (mode 0755) belongs to user {SOMEBODY}: give it to this user with chown\n" in refused(settings)


@pytest.mark.parametrize(
    ("folder", "fine"), [(PARENT, True), (PACKAGES, False)], ids=["above, as /tmp", "the folder itself"]
)
def test_the_sticky_bit_helps_above_the_folder_only(folder: Folder, fine: bool, settings: DaemonSettings) -> None:
    folder(settings).chmod(0o1777)
    assert (refused(settings) == "") is fine


def test_a_link_is_followed_and_its_own_place_counts_too(settings: DaemonSettings, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    link = open_to_all / "link"
    link.symlink_to(settings.watch_dirs[0])
    linked = replace(settings, watch_dirs=(link,))
    assert refused(linked) == ""
    open_to_all.chmod(0o777)
    assert f"{open_to_all} (mode 0777)" in refused(linked)
    open_to_all.chmod(0o755)
    settings.watch_dirs[0].chmod(0o1777)
    assert f"{settings.watch_dirs[0]} (mode 1777)" in refused(linked)


def test_all_faults_are_named_at_once_with_what_allows_them(settings: DaemonSettings) -> None:
    for folder in (HOME, WATCHED):
        folder(settings).chmod(0o777)
    said = refused(settings)
    assert [str(folder(settings)) in said for folder in (HOME, WATCHED)] == [True, True]
    assert "--allow-shared-folders or set allow_shared_folders = true in" in said
    assert refused(settings, by_option=True) == ""


def test_the_settings_file_allows_it_only_where_nobody_else_can_have_written_it(settings: DaemonSettings) -> None:
    home = settings.home
    home.packages.chmod(0o777)
    home.config.write_text("allow_shared_folders = true\n")
    home.config.chmod(0o644)
    allowed = read_settings(home, {})
    assert (allowed.allow_shared_folders, refused(allowed)) == (True, "")
    home.config.chmod(0o666)
    assert "which does not count now" in refused(allowed)
