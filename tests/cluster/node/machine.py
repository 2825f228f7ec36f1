"""Say what a real node needs of this machine, and which of it is missing. Changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cluster.binaries import Unavailable

CNI = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CGROUPS = Path("/sys/fs/cgroup")
INSTALL = "`make node-tools` installs what is missing, as root on Debian or Ubuntu"

_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "openssl": "openssl",
    "mount": "mount",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}


def require() -> None:
    """Return where a node can be brought up. Raises Unavailable, which names all that is missing."""
    if os.uname().sysname != "Linux" or os.geteuid() != 0:
        raise Unavailable("a node needs Linux and root: namespaces, mounts and cgroups")
    missing = sorted({package for program, package in _PROGRAMS.items() if which(program) is None})
    if not any((place / "bridge").exists() for place in CNI):
        missing.append("containernetworking-plugins")
    if missing:
        raise Unavailable(f"a node needs {', '.join(missing)}: {INSTALL}")
    probe = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "true"]
    said = subprocess.run(probe, capture_output=True, text=True, check=False)
    if said.returncode != 0:
        raise Unavailable(f"no namespaces can be made here: {said.stderr.strip()}")
    for hierarchy in hierarchies():
        if not os.access(hierarchy, os.W_OK):
            raise Unavailable(f"no cgroup can be made: {hierarchy} is read-only here")


def hierarchies() -> list[Path]:
    """The roots of all cgroup hierarchies: one where they are unified (version 2), else one for each controller."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [
        place for place in sorted(CGROUPS.iterdir()) if (place / "cgroup.procs").exists() and not place.is_symlink()
    ]


def cni() -> Path:
    """The folder of the network plugins."""
    return next(place for place in CNI if (place / "bridge").exists())


def which(program: str) -> str | None:
    """Where a program is, those for root included."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
