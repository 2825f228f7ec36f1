"""A node leaves the machine as it was: while it runs, and after the tests that use it were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import binaries
from cluster.node import images, inside, machine, node
from groups import NODE

HOLD = """
import sys
from pathlib import Path
from cluster.node.node import real_node
with real_node(Path(sys.argv[1])) as up:
    print(up.plane.kubectl("get", "nodes", "-o", "name").strip(), flush=True)
    sys.stdin.read()
"""


def tunables() -> dict[str, bytes]:
    places = (Path("/proc/sys") / name for name in inside.TUNABLES)
    return {str(place): place.read_bytes() for place in places if place.exists()}


def left(folder: Path, process: int) -> list[str]:
    """What there is of a node whose logs are in ``folder`` and that ``process`` started."""
    found = [str(place) for hierarchy in machine.hierarchies() for place in hierarchy.glob(f"{node.CGROUP}{process}-*")]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(f"process {entry.name}")
            except OSError:
                continue
    return found


@pytest.mark.long
@NODE
def test_a_node_whose_tests_were_killed_leaves_nothing(tmp_path: Path) -> None:
    try:
        machine.require()
        binaries.find(*binaries.CONTROL_PLANE, *binaries.NODE)
        images.pause(), images.image()
    except binaries.Unavailable as error:
        pytest.skip(str(error))
    before = tunables()
    tests = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(node.TESTS)},
    )
    try:
        assert tests.stdout is not None
        assert tests.stdout.readline() == f"node/{inside.NODE}\n"
        assert left(tmp_path, tests.pid)
        assert tunables() == before  # though a kubelet runs
    finally:
        tests.kill()
        tests.communicate()
    until = time.monotonic() + 60.0
    while left(tmp_path, tests.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert left(tmp_path, tests.pid) == []
    assert tunables() == before
    assert not (tmp_path / "data").exists()
