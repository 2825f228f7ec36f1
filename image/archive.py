"""Write a docker-save archive from folders: one layer each, configured by the last stage of a Dockerfile.

The same folders give the same bytes: entries are sorted, owned by root and of one time. Never runs anything.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import shlex
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

CREATED = "1970-01-01T00:00:00Z"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def configuration(dockerfile: str) -> dict[str, Any]:
    """The image configuration that the last stage asks for. Raises ValueError at an instruction that it cannot do."""
    stage = re.split(r"^FROM .*$", dockerfile, flags=re.MULTILINE)[-1]
    config: dict[str, Any] = {"Env": [], "Labels": {}}
    for line in stage.splitlines():
        name, _, rest = line.strip().partition(" ")
        if not name or name.startswith("#") or name in ("COPY", "ARG"):
            continue
        if name in ("ENV", "LABEL"):
            (pair,) = shlex.split(rest)
            key, _, value = pair.partition("=")
            if name == "ENV":
                config["Env"].append(f"{key}={value}")
            else:
                config["Labels"][key] = value
        elif name == "USER":
            config["User"] = rest
        elif name == "WORKDIR":
            config["WorkingDir"] = rest
        elif name == "CMD":
            config["Cmd"] = json.loads(rest)
        else:
            raise ValueError(f"Dockerfile: {name} in the last stage: image/archive.py does not know it")
    return config


def layer(folder: Path, at: str, to: IO[bytes]) -> str:
    """Write the tar of ``folder`` as it is to stand at ``at``; returns its digest."""
    with tarfile.open(fileobj=to, mode="w", format=tarfile.PAX_FORMAT) as tar:
        parents = [parent.as_posix() for parent in reversed(Path(at).parents) if parent.name]
        for name in parents:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(folder, arcname=at or ".", filter=_plain)
    to.seek(0)
    return hashlib.file_digest(to, "sha256").hexdigest()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if entry.isdev():
        return None  # a container brings its own /dev
    entry.mtime = 0
    if entry.name.startswith("opt/"):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
    return entry


def write(output: Path, tag: str, config: dict[str, Any], machine: str, layers: list[tuple[Path, str]]) -> None:
    """Write the archive; one that is there is replaced only when the new one is whole."""
    unfinished = output.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as archive:
        digests = []
        for folder, at in layers:
            with tempfile.TemporaryFile(dir=output.parent) as content:
                digest = layer(folder, at, content)
                digests.append(digest)
                size = content.seek(0, io.SEEK_END)
                content.seek(0)
                _add(archive, f"{digest}/layer.tar", content, size)
        image = {
            "architecture": MACHINES[machine],
            "os": "linux",
            "created": CREATED,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": CREATED, "created_by": at or "base"} for _, at in layers],
        }
        data = json.dumps(image, sort_keys=True).encode()
        name = f"{hashlib.sha256(data).hexdigest()}.json"
        _add(archive, name, io.BytesIO(data), len(data))
        manifest = [{"Config": name, "RepoTags": [tag], "Layers": [f"{digest}/layer.tar" for digest in digests]}]
        data = json.dumps(manifest).encode()
        _add(archive, "manifest.json", io.BytesIO(data), len(data))
    unfinished.replace(output)


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    archive.addfile(entry, content)


def compressed_size(path: Path) -> int:
    """Bytes that a registry would keep, near enough: the archive through gzip."""

    class Counter(io.RawIOBase):
        count = 0

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            Counter.count += len(data)
            return len(data)

    with path.open("rb") as source, gzip.GzipFile(fileobj=Counter(), mode="wb", compresslevel=6) as packed:
        while block := source.read(1 << 20):
            packed.write(block)
    return Counter.count


def main() -> None:
    """LAYER is FOLDER=/PATH/INSIDE; a base is FOLDER=/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dockerfile", type=Path, required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--measure", action="store_true", help="say how large it is compressed, too")
    parser.add_argument("--machine", required=True, help="as `uname -m` says")
    parser.add_argument("output", type=Path)
    parser.add_argument("layers", nargs="+")
    asked = parser.parse_args()
    layers = [(Path(folder), at.strip("/")) for folder, _, at in (text.partition("=") for text in asked.layers)]
    config = configuration(asked.dockerfile.read_text())
    write(asked.output, asked.tag, config, asked.machine, layers)
    size = f"{asked.output.stat().st_size / 1e6:.0f} MB"
    if asked.measure:
        size += f", {compressed_size(asked.output) / 1e6:.0f} MB compressed"
    print(f"{asked.tag}: {asked.output}, {size}")


if __name__ == "__main__":
    main()
