"""Build one program from the Go module in a folder beside the tests, once for each of its versions, into the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.binaries import Unavailable, cache, go


def built(module: Path, package: str, *, linker: Sequence[str] = ()) -> Path:
    """The program that ``package`` of the module in ``module`` is, named after that folder. Raises Unavailable.

    ``linker``: further options of the linker. Programs of other sources, versions or options are other files.
    """
    sources = sorted(path for path in module.iterdir() if path.suffix in (".go", ".mod", ".sum"))
    facts = [*(path.read_bytes() for path in sources), package.encode(), *(option.encode() for option in linker)]
    place = cache() / "bin"
    program = place / f"{module.name}-{hashlib.sha256(b'|'.join(facts)).hexdigest()[:12]}"
    if program.exists():
        return program
    place.mkdir(parents=True, exist_ok=True)
    with (place / f".{module.name}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes of the tests would both build for minutes
        if not program.exists():
            _build(module, package, linker, program)
    return program


def _build(module: Path, package: str, linker: Sequence[str], program: Path) -> None:
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        made = Path(folder) / program.name
        flags = ["-mod=readonly", "-trimpath", "-ldflags", " ".join(["-s", "-w", *linker])]
        done = subprocess.run(
            [str(go()), "build", *flags, "-o", str(made), package],
            cwd=module,
            env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Unavailable(f"{package} could not be built from its Go module:\n{done.stderr[-2000:]}")
        made.rename(program)
