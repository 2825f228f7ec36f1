"""Tell apart the packages of a folder whose different names give one object name. Pure.

``data_ingest`` and ``data-ingest`` would both be the CloacinaPackage ``data-ingest``. One of them has that object; the
other gets one of another name, whose conditions say that the name is taken, so neither takes the other's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cloaca.resources import CloacinaPackage
from cloaca.resources.names import FOLDER, FOLDER_LABEL, object_name, second_package_name

if TYPE_CHECKING:
    from cloacina_operator.core.folder import ArchiveFile


def apart(files: Sequence[ArchiveFile], existing: Iterable[CloacinaPackage]) -> list[ArchiveFile]:
    """``files``, where those of a package whose object name another one has bear the name of an object of its own.

    The package that is active under the name keeps it; else the one that has it without a change; else the first.
    """
    present = {package.name: package for package in existing}
    names: dict[str, set[str]] = {}
    for file in files:
        if file.package is not None:
            names.setdefault(object_name(file.package), set()).add(file.package)
    urls = {file.url for file in files}
    holders = {name: _holder(name, claims, present.get(name), urls) for name, claims in names.items()}
    return [
        file
        if file.package is None or holders[object_name(file.package)] == file.package
        else replace(file, package=second_package_name(file.package))
        for file in files
    ]


def is_second(package: CloacinaPackage, name: str) -> bool:
    """Whether a folder declares ``package``, whose archive is of package ``name``, under another name than its own."""
    return package.metadata.labels.get(FOLDER_LABEL) == FOLDER and package.name != object_name(name)


def _holder(name: str, claims: set[str], package: CloacinaPackage | None, urls: set[str]) -> str:
    """Which of the packages in ``claims`` has the object ``name``."""
    active = None if package is None or package.status.active is None else package.status.active.name
    if active is not None and package is not None and (active in claims or package.spec.source.url in urls):
        return active
    return name if name in claims else min(claims)
