"""A Docker daemon for tests: whichever answers here, or one in namespaces of its own, of which nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.binaries import Unavailable
from cluster.node import inside, machine

CGROUP = "cloacina-docker-"
READY_SECONDS = 60.0
NONE = (
    "no Docker daemon answers here (docker info), and none can be started: that needs root and the program dockerd, "
    "of Debian's package docker.io"
)


@dataclass(frozen=True, kw_only=True)
class Docker:
    """What the client of a daemon does."""

    environment: dict[str, str]

    def __call__(self, *words: str, given: Path | None = None) -> str:
        """What it prints. Raises RuntimeError with what it said."""
        with (given or Path(os.devnull)).open("rb") as source:
            done = subprocess.run(
                ["docker", *words],
                stdin=source,
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, **self.environment},
            )
        if done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(words)}: {(done.stdout + done.stderr).strip()[-3000:]}")
        return done.stdout


@contextmanager
def docker(folder: Path) -> Iterator[Docker]:
    """Whoever answers, with what they need in ``folder`` where that is a daemon of ours. Raises Unavailable."""
    if machine.which("docker") is None:
        raise Unavailable("there is no program docker here")
    given = Docker(environment={})
    if _answers(given):
        yield given
        return
    if os.geteuid() != 0 or machine.which("dockerd") is None:
        raise Unavailable(NONE)
    cgroup = f"{CGROUP}{os.getpid()}"
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "dockerd.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, sys.executable, "-m", "cluster.node.docker", str(folder), cgroup],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    ours = Docker(environment={"DOCKER_HOST": f"unix://{folder / 'docker.sock'}"})
    try:
        until = time.monotonic() + READY_SECONDS
        while not _answers(ours):
            if process.poll() is not None or time.monotonic() > until:
                raise Unavailable(f"dockerd does not come up:\n{(folder / 'dockerd.log').read_text()[-3000:]}")
            time.sleep(0.1)  # it tells nobody when it is ready
        yield ours
    finally:
        process.kill()  # and with it whatever it is the parent of, down to the last container
        process.wait()
        inside.remove_cgroup(cgroup)
        shutil.rmtree(folder / "docker", ignore_errors=True)


def _answers(one: Docker) -> bool:
    with suppress(RuntimeError):
        return bool(one("info", "--format={{.ServerVersion}}").strip())
    return False


def main(folder: Path, cgroup: str) -> None:
    """As process 1 of its namespaces: the daemon, without any network. Its folder must hold an overlay."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for words in (("mount", "-t", "tmpfs", "tmpfs", "/run"), ("ip", "link", "set", "lo", "up")):
        subprocess.run(words, check=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    command = ["dockerd", f"--data-root={folder / 'docker'}", f"--host=unix://{folder / 'docker.sock'}"]
    command += ["--bridge=none", "--iptables=false", "--ip-forward=false", "--log-level=warn"]
    command += [f"--cgroup-parent=/{cgroup}"]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
