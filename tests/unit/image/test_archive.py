"""The image made without Docker: what it reads from the Dockerfile, what it installs, that it is the same twice."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_archive", ROOT / "image" / "archive.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


archive = loaded()


def pins(path: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", (ROOT / path).read_text(), re.MULTILINE))


def test_the_dockerfile_gives_a_numeric_user_and_labels() -> None:
    config = archive.configuration((ROOT / "Dockerfile").read_text())
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", config["User"])
    assert config["Env"][0].startswith("PATH=/opt/cloacina/bin:")
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert config["Labels"]["org.opencontainers.image.version"] == version[1]


def test_an_instruction_that_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="HEALTHCHECK"):
        archive.configuration("FROM a\nRUN b\nFROM c\nHEALTHCHECK NONE\n")


def test_the_image_installs_what_is_locked_and_no_development_tool() -> None:
    image, everything = pins("image/requirements.lock"), pins("requirements.lock")
    assert image.items() <= everything.items()
    assert {"kopf", "psycopg", "pydantic"} <= image.keys()
    assert not {"pytest", "duckdb", "mypy", "ruff", "hatchling", "uv"} & image.keys()


@pytest.mark.skipif(not hasattr(__import__("hashlib"), "file_digest"), reason="image/archive.py needs Python 3.11")
def test_the_same_folders_give_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for number in ("one", "two"):
        folder = tmp_path / number / "cloacina"
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "tool").write_text("#!/bin/sh\n")
        output = tmp_path / f"{number}.tar"
        archive.write(output, "cloacina:1", {"User": "1:1"}, "x86_64", [(folder, "opt/cloacina")])
        made.append(output.read_bytes())
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(made[0])) as whole:
        (manifest,) = json.load(whole.extractfile("manifest.json") or io.BytesIO())
        with tarfile.open(fileobj=whole.extractfile(manifest["Layers"][0])) as content:
            assert content.getnames() == ["opt", "opt/cloacina", "opt/cloacina/bin", "opt/cloacina/bin/tool"]
            assert {(entry.uid, entry.mtime) for entry in content} == {(0, 0)}
