"""Refuse folders that other users may write to: whoever writes there decides which code the daemon runs."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from cloaca.errors import CloacaError
from cloacina_operator.settings import DaemonSettings

ROOT = 0


def refuse_writable_by_others(settings: DaemonSettings, *, by_option: bool) -> None:
    """Check the home, the folders whose archives are deployed, and all folders above them.

    A folder is refused if others may write to it (its mode or, above it, a mode without the sticky bit), or if it
    belongs to somebody else than root or the user of this process. The group does not count as others where it is the
    user's own, of the same name and without other members.

    ``by_option``: an option of the command line allows it. A settings file that allows it counts only if nobody else
    can have written it: otherwise those who are to be kept out could.

    Raises CloacaError, which names every folder, its mode and the remedy; never if it is allowed.
    """
    home = settings.home
    if by_option or (settings.allow_shared_folders and _is_ours_alone(home.config)):
        return
    trusted = _trusted_owners()
    named = [home.root, home.packages, home.unpacked, *settings.watch_dirs]
    used = {*named, *(folder.resolve() for folder in named)}
    faults = [fault for path in _with_parents(named) if (fault := _fault(path, path in used, trusted))]
    if faults:
        why_not = ""
        if settings.allow_shared_folders:
            why_not = ", which does not count now: others can write that file, or it is not this user's"
        raise CloacaError(
            "other users may write to folders from which code runs here:\n"
            + "\n".join(f"  {fault}" for fault in dict.fromkeys(faults))
            + "\nor, if everybody who can write there may run code as this user, start it with --allow-shared-folders"
            f" or set allow_shared_folders = true in {home.config}{why_not}"
        )


def _is_ours_alone(path: Path) -> bool:
    """Whether only root and the user of this process can have written the file."""
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_uid in _trusted_owners() and not _writable(status)


def _with_parents(folders: Iterable[Path]) -> Iterator[Path]:
    """Each folder and what is above it, also along links: who may rename one of them may put another in its place."""
    seen: dict[Path, None] = {}
    for folder in folders:
        resolved = folder.resolve()
        seen.update(dict.fromkeys([folder, resolved, *folder.parents, *resolved.parents]))
    return iter(seen)


def _fault(path: Path, is_used: bool, trusted: set[int]) -> str | None:
    try:
        status = path.stat()
    except OSError:  # it is not there yet, or it cannot be looked at: who uses it will say so
        return None
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    if status.st_uid not in trusted:
        return f"{path} ({mode}) belongs to {_user(status.st_uid)}: give it to this user with chown"
    sticky = status.st_mode & stat.S_ISVTX and not is_used
    if _writable(status) and not sticky:
        return f"{path} ({mode}) can be written by others: run `chmod go-w {path}`"
    return None


def _writable(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private_group(status.st_gid)


def _is_private_group(group: int) -> bool:
    """Whether it is the group that many systems make for each user. That of root is not: containers share it."""
    if os.geteuid() == ROOT:
        return False
    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == user.pw_gid and found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}


def _trusted_owners() -> set[int]:
    """User ids whose files may be trusted. In a user namespace, the owners outside of it all look like one user."""
    trusted = {ROOT, os.geteuid()}
    try:
        whole = Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]
        if not whole:
            trusted.add(int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii")))
    except (OSError, ValueError):  # a system without user namespaces
        pass
    return trusted


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
