"""Where the local daemon keeps its things, and where the CLI finds them. Names paths; creates nothing."""

from __future__ import annotations

import os
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
        try:
            if wanted is not None:
                return cls(wanted.expanduser().absolute())
            user = Path(environment["HOME"]) if environment.get("HOME") else _home_of_user(environment)
        except RuntimeError as error:
            of_whom = f"{wanted}: " if wanted is not None else ""
            raise CloacaError(
                f"{of_whom}the user's home directory is not known ($HOME is not set, or there is no such user): set "
                f"${VARIABLE}, or give --home, with an absolute path"
            ) from error
        except FileNotFoundError as error:
            raise CloacaError(f"{wanted}: the current folder was removed: change to another one") from error
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


def _home_of_user(environment: Mapping[str, str]) -> Path:
    """What the user database says. Raises RuntimeError if ``$HOME`` is empty, or there is no such user."""
    if "HOME" in environment:
        raise RuntimeError("$HOME is empty")
    return Path.home()
