"""Which packages a folder of archives declares. Pure: works on what was seen of the files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloaca.resources import CloacinaPackage, ObjectMeta
from cloaca.resources.names import FOLDER, FOLDER_LABEL, object_name
from cloaca.resources.package import PackageSource, PackageSpec

SUFFIX = ".cloacina"

_SEMVER = re.compile(
    r"(?P<major>[0-9]+)\.(?P<minor>[0-9]+)\.(?P<patch>[0-9]+)(-(?P<pre>[0-9A-Za-z.-]+))?(\+[0-9A-Za-z.-]+)?"
)
_NAMED = re.compile(r"(?P<name>.+?)-(?P<version>[0-9]+\.[0-9]+\.[0-9]+.*)")


@dataclass(frozen=True, kw_only=True)
class ArchiveFile:
    """A file that should be an archive."""

    path: str
    url: str
    digest: str
    package: str | None  # as its manifest says; None: it cannot be read
    version: str | None


def desired(files: Iterable[ArchiveFile]) -> dict[str, CloacinaPackage]:
    """Name → the package that the folder declares: of several archives of one package, the newest version.

    An archive that cannot be read declares a package too, named after its file, so that somebody can see what is wrong
    with it.
    """
    chosen: dict[str, ArchiveFile] = {}
    for file in sorted(files, key=lambda file: file.path):
        name = object_name(_name(file))
        known = chosen.get(name)
        if known is None or _precedence(_version(file)) >= _precedence(_version(known)):
            chosen[name] = file
    return {name: _package(name, file) for name, file in chosen.items()}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is to be done so that the store holds what a folder declares."""

    create: tuple[CloacinaPackage, ...]
    update: tuple[CloacinaPackage, ...]
    delete: tuple[CloacinaPackage, ...]
    taken: tuple[CloacinaPackage, ...]  # declared, but somebody applied a package of that name by hand


def difference(wanted: Mapping[str, CloacinaPackage], existing: Iterable[CloacinaPackage]) -> Difference:
    """Compare by source and pin alone: whatever else a person changed of such a package stays."""
    present = {package.name: package for package in existing}
    ours = {name: package for name, package in present.items() if package.metadata.labels.get(FOLDER_LABEL) == FOLDER}
    update = []
    for name, package in wanted.items():
        if name in ours:
            seen = ours[name].spec
            if (seen.source, seen.digest) != (package.spec.source, package.spec.digest):
                update.append(ours[name].with_spec(source=package.spec.source, digest=package.spec.digest))
    return Difference(
        create=tuple(package for name, package in wanted.items() if name not in present),
        update=tuple(update),
        delete=tuple(package for name, package in ours.items() if name not in wanted),
        taken=tuple(package for name, package in wanted.items() if name in present and name not in ours),
    )


def _package(name: str, file: ArchiveFile) -> CloacinaPackage:
    return CloacinaPackage(
        metadata=ObjectMeta(name=name, labels={FOLDER_LABEL: FOLDER}),
        spec=PackageSpec(source=PackageSource(url=file.url), digest=file.digest),
    )


def _stem(file: ArchiveFile) -> str:
    return file.path.rsplit("/", 1)[-1].removesuffix(SUFFIX)


def _name(file: ArchiveFile) -> str:
    if file.package is not None:
        return file.package
    match = _NAMED.fullmatch(_stem(file))
    return match["name"] if match else _stem(file)


def _version(file: ArchiveFile) -> str:
    if file.version is not None:
        return file.version
    match = _NAMED.fullmatch(_stem(file))
    return match["version"] if match else "0.0.0"


def _precedence(version: str) -> tuple[object, ...]:
    """A key that sorts versions as semver.org (item 11) orders them; anything else sorts before every version."""
    match = _SEMVER.fullmatch(version)
    if match is None:
        return (0, version)
    numbers = tuple(int(match[part]) for part in ("major", "minor", "patch"))
    if match["pre"] is None:
        return (1, numbers, 1, ())
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in match["pre"].split("."))
    return (1, numbers, 0, parts)
