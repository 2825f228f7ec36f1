"""Where the local daemon keeps its things, and where the CLI finds them. Names paths; creates nothing."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloaca.errors import CloacaError

VARIABLE = "CLOACINA_HOME"
STORE_VARIABLE = "CLOACINA_STORE"
"""Names the store, before the setting ``store`` in the home's ``config.toml``."""


@dataclass(frozen=True)
class Home:
    """The folders and files below one home, ``~/.cloacina`` unless said otherwise."""

    root: Path

    @classmethod
    def find(cls, given: Path | None, environment: Mapping[str, str]) -> Home:
        """``given``, else ``$CLOACINA_HOME``, else ``~/.cloacina``.

        Raises CloacaError if that depends on the user's home directory and there is none, or on a current folder that
        was removed.
        """
        named = environment.get(VARIABLE)
        wanted = given or (Path(named) if named else None)
        if wanted is not None:
            return cls(absolute(wanted))
        user = user_home(environment)
        if user is None:
            raise CloacaError(
                "the user's home directory is not known: $HOME is not set, and the user database has none: set "
                f"${VARIABLE}, or give --home"
            )
        if not user.is_absolute():
            raise CloacaError(f"$HOME is {str(user)!r}, which is not an absolute path: correct it, or set ${VARIABLE}")
        return cls(user / ".cloacina")

    @property
    def config(self) -> Path:
        """Settings of the daemon."""
        return self.root / "config.toml"

    @property
    def packages(self) -> Path:
        """Archives that are copied here are deployed."""
        return self.root / "packages"

    @property
    def database(self) -> Path:
        """The store."""
        return self.root / "cloacina.db"

    @property
    def lock(self) -> Path:
        """Held by the daemon that runs on this home; says its process id."""
        return self.root / "daemon.lock"

    @property
    def counted(self) -> Path:
        """Up to when runs that ended were counted for Prometheus; there only if the daemon has a port for that."""
        return self.root / "metrics.counted"

    @property
    def unpacked(self) -> Path:
        """Archives as folders, by digest; can be deleted while no daemon runs."""
        return self.root / "unpacked"

    @property
    def logs(self) -> Path:
        """What user code printed."""
        return self.root / "logs"

    def unpacked_archive(self, digest: str) -> Path:
        """Where the archive of ``digest`` (``sha256:…``) is unpacked to."""
        return self.unpacked / digest.removeprefix("sha256:")

    def run_log(self, run: str, namespace: str) -> Path:
        """What the tasks of a run printed, over all its attempts."""
        return self.logs / "runs" / namespace / f"{run}.log"

    def package_log(self, package: str, namespace: str) -> Path:
        """What a package printed while it was imported and polled."""
        return self.logs / "packages" / namespace / f"{package}.log"


def unmask_owner() -> None:
    """Let the owner of a file that this process makes use it, whatever the umask says: we read back what we write."""
    masked = os.umask(0o077)
    os.umask(masked & 0o077)


def absolute(path: Path) -> Path:
    """``path`` with ``~`` replaced, from the root on. Raises CloacaError if that is not known."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise CloacaError(f"{path}: the home directory of that user is not known: write an absolute path") from error
    except FileNotFoundError as error:
        raise CloacaError(f"{path}: the current folder was removed: change to another one") from error


def user_home(environment: Mapping[str, str]) -> Path | None:
    """``$HOME``, else what the user database says; None: neither says anything, as for many users of services."""
    if "HOME" in environment:
        return Path(environment["HOME"]) if environment["HOME"] else None
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None
