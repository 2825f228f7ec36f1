"""The processes of the runtime image, as a kubelet starts them: with an archive mounted, without a kubelet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cloaca.packages.archive import digest_of

PATIENCE = 30.0


class Pod:
    """A folder with the parts of an archive, and processes that have it mounted."""

    def __init__(self, folder: Path, data: bytes, *, part: int = 300) -> None:
        self.folder, self.digest, self.data = folder, digest_of(data), data
        self.words = folder / "termination-log"
        self.store = str(folder / "store.db")
        mount = folder / "archive"
        hidden = mount / "..2026_03_28"  # as the kubelet lays out a projected volume
        hidden.mkdir(parents=True)
        (mount / "..data").symlink_to(hidden.name)
        for number, start in enumerate(range(0, len(data), part)):
            (hidden / f"{number:03d}").write_bytes(data[start : start + part])
            (mount / f"{number:03d}").symlink_to(f"..data/{number:03d}")

    def start(self, module: str, *arguments: str, digest: str | None = None) -> subprocess.Popen[str]:
        where = ["--archive", str(self.folder / "archive"), "--digest", digest or self.digest]
        return subprocess.Popen(
            [sys.executable, "-m", f"cloaca.processes.{module}", *where, "--scratch", f"{self.folder}/tmp", *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONSAFEPATH": "1",
                "CLOACA_LAST_WORDS": str(self.words),
                "CLOACA_POD": "demo-1-x7k2p",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, module: str, *arguments: str, digest: str | None = None) -> tuple[int, str]:
        process = self.start(module, *arguments, digest=digest)
        said, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, said
