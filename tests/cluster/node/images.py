"""Make the images that a node of ours runs, once for each content, into the cache outside the tree. Starts nothing."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster.binaries import Unavailable, cache, go
from cluster.node import machine

ROOT = Path(__file__).parents[3]
TAG = "docker.io/library/cloacina:test"
PAUSE = "docker.io/library/pause:test"
KEPT = 3  # images of other contents that stay in the cache

_OURS = ("cloaca", "operator", "image", "Dockerfile", "pyproject.toml", "README.md", "LICENSE")


def image() -> Path:
    """The archive of our image as this checkout makes it. Raises Unavailable."""
    place = cache() / "image"
    place.mkdir(parents=True, exist_ok=True)
    archive = place / f"test-{_content()}.tar"
    if not archive.exists():
        if machine.which("debootstrap") is None:
            raise Unavailable(f"the image needs debootstrap: {machine.INSTALL}")
        with (place / ".test-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not archive.exists():
                _make(archive)
    archive.touch()  # used last
    for old in sorted(place.glob("test-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)[1 + KEPT :]:
        old.unlink(missing_ok=True)
    return archive


def pause() -> Path:
    """The archive of the image that holds a pod's namespaces. Raises Unavailable."""
    source = Path(__file__).parent / "pause"
    key = hashlib.sha256((source / "main.go").read_bytes()).hexdigest()[:12]
    archive = cache() / "image" / f"pause-{key}.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as made:
        root = Path(made) / "root"
        root.mkdir()
        run(
            [str(go()), "build", "-trimpath", "-ldflags=-s -w", "-o", str(root / "pause"), "."],
            cwd=source,
            env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""},
        )
        dockerfile = Path(made) / "Dockerfile"
        dockerfile.write_text('FROM scratch\nCMD ["/pause"]\n')
        out = Path(made) / "pause.tar"
        _archive(dockerfile, PAUSE, out, f"{root}=/")
        out.replace(archive)
    return archive


def _make(archive: Path) -> None:
    print(f"making the image: {archive} (a minute; the first one takes some more)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as made:
        out = Path(made) / "cloacina.tar"
        run([str(ROOT / "image" / "build.sh"), str(out), TAG], cwd=ROOT)
        out.replace(archive)


def _archive(dockerfile: Path, tag: str, out: Path, layer: str) -> None:
    program = ["python3", str(ROOT / "image" / "archive.py"), "--dockerfile", str(dockerfile), "--tag", tag]
    run([*program, "--machine", os.uname().machine, str(out), layer])


def _content() -> str:
    """Changes with whatever the image is made of."""
    digest = hashlib.sha256()
    for name in _OURS:
        place = ROOT / name
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def run(command: list[str], **options: object) -> None:
    """Run a command to its good end. Raises Unavailable with what it said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)  # type: ignore[call-overload]  # passed on as they are
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command[:2])} failed:\n{done.stdout[-3000:]}")


if __name__ == "__main__":
    try:
        machine.require()
        for _path in (pause(), image()):
            print(_path)
    except Unavailable as error:
        sys.exit(str(error))
