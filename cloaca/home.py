"""Where the local daemon keeps its things, and where the CLI finds them. Names paths; creates nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "CLOACINA_HOME"
STORE_VARIABLE = "CLOACINA_STORE"
"""Names the store, before the setting ``store`` in the home's ``config.toml``."""


@dataclass(frozen=True)
class Home:
    """The folders and files below one home, ``~/.cloacina`` unless said otherwise."""

    root: Path

    @classmethod
    def find(cls, given: Path | None, environment: Mapping[str, str]) -> Home:
        """``given``, else ``$CLOACINA_HOME``, else ``~/.cloacina``."""
        if given is not None:
            return cls(given.expanduser().absolute())
        named = environment.get(VARIABLE)
        return cls(Path(named).expanduser().absolute() if named else Path.home() / ".cloacina")

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
