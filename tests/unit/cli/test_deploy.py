"""``deploy`` into a home: one archive of the package is there, whole, and no object of a person is in its way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from builders import WORKFLOW, archive

from cloaca.packages.archive import digest_of
from cloaca.resources import CloacinaPackage, ObjectMeta
from cloaca.resources.package import PackageSource, PackageSpec

OLD, NEW = archive(WORKFLOW, version="2.0.0"), archive(WORKFLOW, version="1.0.0")


def deployed(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_archive_takes_the_place_of_the_packages_others(cloaca: Any, tmp_path: Path) -> None:
    folder = cloaca.home.packages
    (tmp_path / "any-name.cloacina").write_bytes(OLD)
    other = archive(WORKFLOW, name="other")
    folder.mkdir(parents=True)
    (folder / "other.cloacina").write_bytes(other)
    (folder / "broken.cloacina").write_bytes(b"no archive")
    cloaca("deploy", "any-name.cloacina")

    (tmp_path / "any-name.cloacina").write_bytes(NEW)
    said = cloaca("deploy", "any-name.cloacina")

    where = folder / "demo-1.0.0.cloacina"
    text = f"cloacinapackage.cloacina.io/demo deployed: version 1.0.0, {digest_of(NEW)}, as {where}\n"
    assert (said.code, said.out) == (0, text)
    assert said.err == (
        "demo-2.0.0.cloacina removed: it is of the same package\n"
        f"note: no daemon runs on {cloaca.home.root}, so nothing is polled and no run starts: start `cloaca daemon`\n"
    )
    assert deployed(folder) == {"demo-1.0.0.cloacina": NEW, "other.cloacina": other, "broken.cloacina": b"no archive"}
    assert " unchanged: " in cloaca("deploy", "any-name.cloacina").out


def test_what_else_lies_in_the_folder_holds_up_nothing(cloaca: Any, tmp_path: Path) -> None:
    folder = cloaca.home.packages
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.cloacina")
    (folder / "link.cloacina").symlink_to("/nowhere")
    (folder / "folder.cloacina").mkdir()
    (tmp_path / "demo.cloacina").write_bytes(NEW)
    assert cloaca("deploy", "demo.cloacina").code == 0
    assert (folder / "demo-1.0.0.cloacina").read_bytes() == NEW


def test_a_package_that_a_person_applied_is_not_in_the_folders_hand(cloaca: Any, tmp_path: Path) -> None:
    (tmp_path / "demo.cloacina").write_bytes(NEW)
    source = PackageSource(url="file:///srv/demo.cloacina")
    cloaca.put(CloacinaPackage(metadata=ObjectMeta(name="demo"), spec=PackageSpec(source=source)))

    said = cloaca("deploy", "demo.cloacina")

    assert said.code == 1
    assert "package 'demo' was applied by hand, with file:///srv/demo.cloacina" in said.err
    assert not cloaca.home.packages.exists()


def test_what_cannot_be_is_refused_before_anything_is_written(cloaca: Any, tmp_path: Path) -> None:
    (tmp_path / "demo.cloacina").write_bytes(NEW)
    (tmp_path / "bad.cloacina").write_bytes(b"no archive")
    assert "becomes the package 'demo' in namespace 'default'" in cloaca("deploy", "demo.cloacina", "-n", "a").err
    assert "becomes the package 'demo'" in cloaca("deploy", "demo.cloacina", "--name", "b").err
    assert cloaca("deploy", "bad.cloacina").code == 1
    assert not cloaca.home.packages.exists()
    assert "--wait would wait forever: no daemon runs" in cloaca("deploy", "demo.cloacina", "--wait").err
