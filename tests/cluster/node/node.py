"""A Kubernetes with one real node, for tests: started in namespaces of its own, spoken to from outside. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import binaries
from cluster.control_plane import ControlPlane, NotReady
from cluster.node import images, inside, machine

CGROUP = "cloacina-node-"
TESTS = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Node:
    """A whole cluster, and the right to stop and start its programs."""

    plane: ControlPlane
    folder: Path
    process: subprocess.Popen[str]

    def stop(self, name: str) -> None:
        """Kill ``kube-apiserver``, ``kubelet`` and so on; it has ended when this returns."""
        self._order(f"stop {name}")

    def start(self, name: str) -> None:
        """Start a program again; an API server answers when this returns."""
        self._order(f"start {name}")

    def _order(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        if self.process.stdout.readline() != "done\n":
            raise NotReady(f"{line}: {(self.folder / 'node.log').read_text()[-3000:]}")


@contextmanager
def real_node(folder: Path) -> Iterator[Node]:
    """A fresh one, with its logs in ``folder``; nothing of it is left at the end. Raises Unavailable, NotReady."""
    machine.require()
    programs = binaries.find(*binaries.CONTROL_PLANE, *binaries.NODE)
    archives = (images.pause(), images.image())
    remove_leftovers()
    cgroup = f"{CGROUP}{os.getpid()}-{os.urandom(3).hex()}"
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    command += [
        sys.executable,
        "-m",
        "cluster.node.inside",
        str(folder),
        cgroup,
        *map(str, (*programs.values(), *archives)),
    ]
    with (folder / "node.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests: when they end, so does its standard input
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            process.wait()
            raise NotReady((folder / "node.log").read_text()[-5000:])
        plane = ControlPlane(
            folder=folder,
            url="",
            kubectl_program=programs["kubectl"],
            kubeconfig=folder / "admin.kubeconfig",
            within=("nsenter", f"--net=/proc/{process.pid}/ns/net"),
        )
        yield Node(plane=plane, folder=folder, process=process)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def remove_leftovers() -> None:
    """Remove the cgroups of nodes that were killed in a way that let them clear up nothing."""
    for hierarchy in machine.hierarchies():
        for place in hierarchy.glob(f"{CGROUP}*"):
            if not any(file.read_text() for file in place.rglob("cgroup.procs")):
                owner = place.name.removeprefix(CGROUP).partition("-")[0]
                if not Path(f"/proc/{owner}").exists():
                    inside.remove_cgroup(place.name)
