"""The Dockerfile itself, built by a Docker daemon without any network: from a Debian base and a folder of wheels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.binaries import Unavailable, cache
from cluster.node import images
from cluster.node.docker import Docker, docker
from groups import NODE

pytestmark = [pytest.mark.long, NODE]

SUITE = "bookworm"  # as image/build.sh has it where nobody says another one
BASE, TAG = "cloacina-base:test", "cloacina:dockerfile-test"
SANDBOX = ("--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
UNCOMPILED = """
import importlib, os, sys
for name in ("attempt", "run", "poll", "inspect"):
    importlib.import_module(f"cloaca.processes.{name}")
importlib.import_module("cloacina_operator.hosts.kopf_app")
files = {module.__cached__ for module in list(sys.modules.values()) if getattr(module, "__cached__", None)}
print([file for file in files if not os.path.exists(file)])
"""
MEGABYTES = 350  # that the image may have: it is 198, and 244 with a base that was not thinned out


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A daemon that has made the image. Skips where there is no daemon, or no base can be had."""
    folder = tmp_path_factory.mktemp("docker")
    try:
        images.image()  # which leaves its base and its wheels in the cache
        with docker(folder) as daemon:
            made_of(daemon, folder)
            yield daemon
            daemon("image", "rm", TAG, BASE)
    except Unavailable as error:
        pytest.skip(str(error))


def made_of(daemon: Docker, folder: Path) -> None:
    base, archive = cache() / "image" / f"base-{SUITE}", folder / "base.tar"
    wheels = max((cache() / "image").glob("wheels-*"), key=lambda place: place.stat().st_mtime)
    images.run(["tar", "--create", f"--file={archive}", f"--directory={base}", "."])
    daemon("import", "-", BASE, given=archive)
    context = folder / "context"
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"):
        context.mkdir(exist_ok=True)
        shutil.copy(images.ROOT / name, context)
    for name in ("cloaca", "operator", "image"):
        shutil.copytree(images.ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(wheels, context / "image" / "wheels")
    given = {"BASE": BASE, "WHEELS": "/source/image/wheels"}
    arguments = [f"--build-arg={name}={value}" for name, value in given.items()]
    daemon("build", "--network=none", f"--tag={TAG}", *arguments, str(context))


def within(daemon: Docker, *command: str, user: tuple[str, ...] = ()) -> str:
    return daemon("run", *SANDBOX, *user, TAG, *command).strip()


def test_it_is_what_the_dockerfile_says(built: Docker) -> None:
    (seen,) = json.loads(built("image", "inspect", TAG))
    config: dict[str, Any] = seen["Config"]

    assert config["User"] == "65532:65532"
    assert config["Labels"] == {
        "org.opencontainers.image.title": "cloacina",
        "org.opencontainers.image.description": "Packaged triggers in Python: operator, pollers and runs",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": "0.1.0",
    }
    print(f"{TAG}: {seen['Size'] / 1e6:.0f} MB")
    assert seen["Size"] < MEGABYTES * 1e6


def test_it_works_on_a_root_that_is_read_only_as_nobody(built: Docker) -> None:
    assert within(built, "id", "-u") == "65532"
    assert within(built, "sh", "-c", "touch /opt/cloacina/file || echo refused").endswith("refused")
    assert "Usage: cloaca" in within(built, "cloaca", "--help")
    assert within(built, "python", "-c", UNCOMPILED) == "[]"  # nothing is left to compile at each start


def test_nothing_that_builds_is_left_in_it(built: Docker) -> None:
    programs = "for program in cc gcc make git uv pip; do command -v $program; done; true"
    assert within(built, "sh", "-c", programs) == ""
    root = ("--user=0",)  # who may look everywhere
    named = "-name uv -o -name .cache -o -name *.whl -o -name wheels -o -path /source"
    newer = ("-newer", "/etc/machine-id")  # than the base, whose ensurepip has wheels of its own
    assert within(built, "find", "/", "-xdev", "(", *named.split(), ")", *newer, user=root) == ""
    assert within(built, "sh", "-c", "grep -rl uv_cache.json /opt/cloacina/lib || true") == ""  # it has a time in it
    writable = ("!", "-type", "l", "-perm", "/022")
    assert within(built, "find", "/opt", "-xdev", *writable, user=root) == ""
