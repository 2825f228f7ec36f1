"""Decide which packages the watched folders declare, and which are known to be gone. Pure: works on what was seen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from cloaca.resources import CloacinaPackage, ObjectMeta
from cloaca.resources.names import FILES_ANNOTATION, FOLDER, FOLDER_LABEL, object_name
from cloaca.resources.package import PackageSource, PackageSpec

SUFFIX = ".cloacina"
FILES_KEPT = 20  # archives of one package that are remembered, those of the newest versions

_SEMVER = re.compile(
    r"(?P<major>[0-9]+)\.(?P<minor>[0-9]+)\.(?P<patch>[0-9]+)(-(?P<pre>[0-9A-Za-z.-]+))?(\+[0-9A-Za-z.-]+)?"
)
_NAMED = re.compile(r"(?P<name>.+?)-(?P<version>[0-9]+\.[0-9]+\.[0-9]+.*)")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells a folder from another one that takes its place under the same path."""

    volume: str  # the file system
    inode: int


@dataclass(frozen=True, kw_only=True)
class SeenFolder:
    """A watched folder, as it was listed."""

    path: str
    url: str
    identity: Identity | None  # None: it is away
    trouble: str = ""  # why it is away


@dataclass(frozen=True, kw_only=True)
class ArchiveFile:
    """A file that should be an archive."""

    path: str
    url: str
    digest: str | None  # None: it was not read
    package: str | None = None  # as its manifest says; None: the manifest cannot be read
    version: str | None = None
    trouble: str = ""  # why it cannot be used; empty where it was not read: it is being written


@dataclass(frozen=True, kw_only=True)
class SeenFolders:
    """What was seen in all the watched folders."""

    folders: tuple[SeenFolder, ...]
    files: tuple[ArchiveFile, ...]
    gone: frozenset[str] = frozenset()  # URLs of files that have been missing for long enough to count as removed


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """What is remembered of an archive: of which version it was, and in which folder it was seen."""

    version: str | None
    folder: Identity | None
    other: bool = False  # the file is an archive of another package now


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is to be done so that the store holds what the folders declare."""

    create: tuple[CloacinaPackage, ...] = ()
    update: tuple[CloacinaPackage, ...] = ()
    delete: tuple[CloacinaPackage, ...] = ()
    taken: tuple[CloacinaPackage, ...] = ()  # declared, but somebody applied a package of that name by hand
    troubles: Mapping[str, str] | None = None  # name → why a file or folder of the package cannot be used
    strays: Mapping[str, str] | None = None  # path → why a file that belongs to no package cannot be used
    missing: frozenset[str] = frozenset()  # URLs of files that count as removed, or will if they stay away
    replaced: frozenset[str] = frozenset()  # those of them whose folder is another one by now


def desired(files: Iterable[ArchiveFile]) -> dict[str, ArchiveFile]:
    """Name → the archive that counts: of several archives of one package, the newest version.

    An archive whose manifest cannot be read declares a package too, named after its file, so that somebody can see
    what is wrong with it. Files that were not read declare nothing.
    """
    chosen: dict[str, ArchiveFile] = {}
    for file in sorted(files, key=lambda file: file.path):
        if file.digest is None or file.trouble:
            continue
        name = package_of(file)
        known = chosen.get(name)
        if known is None or precedence(version_of(file)) >= precedence(version_of(known)):
            chosen[name] = file
    return chosen


def difference(seen: SeenFolders, existing: Iterable[CloacinaPackage]) -> Difference:
    """Compare by source and pin alone: whatever else a person changed of such a package stays.

    A package is deleted only where each of its files is known to be gone: the folder that held it was listed, is still
    the same folder, and does not have it. A package whose file cannot be used keeps what it has.
    """
    present = {package.name: package for package in existing}
    ours = {name: package for name, package in present.items() if package.metadata.labels.get(FOLDER_LABEL) == FOLDER}
    remembered = {name: known_files(package) for name, package in ours.items()}
    files = _recalled(seen.files, remembered)
    wanted = desired(files)
    view = _View(seen, files)
    update, delete = [], []
    troubles: dict[str, str] = {}
    missing: dict[str, KnownFile] = {}
    for name, package in ours.items():
        verdict = _judge(package, remembered[name], wanted.get(name), view)
        missing |= {url: remembered[name][url] for url in verdict.missing}
        if verdict.trouble:
            troubles[name] = verdict.trouble
        if verdict.delete:
            delete.append(package)
        elif verdict.changed is not None:
            update.append(verdict.changed)
    strays: dict[str, str] = {}
    for file in files:
        if not file.trouble:
            continue
        name = package_of(file)
        older = name in wanted and precedence(version_of(file)) < precedence(version_of(wanted[name]))
        if name in ours and not older:
            troubles.setdefault(name, file.trouble)
        else:
            strays[file.path] = file.trouble
    foreign = present.keys() - ours.keys()
    return Difference(
        create=tuple(_package(name, file, view) for name, file in wanted.items() if name not in present),
        update=tuple(update),
        delete=tuple(delete),
        taken=tuple(_package(name, file, view) for name, file in wanted.items() if name in foreign),
        troubles=troubles,
        strays=strays,
        missing=frozenset(missing),
        replaced=frozenset(url for url, known in missing.items() if not view.is_where(known, url)),
    )


class _State(Enum):
    """What became of a file that is remembered."""

    DECLARES = "declares"  # it is an archive of the package
    OTHER = "other"  # it is an archive of another package
    WRITTEN = "written"  # it is being written
    UNUSABLE = "unusable"
    MISSING = "missing"  # not for long enough to count as removed
    AWAY = "away"  # its folder cannot say
    UNWATCHED = "unwatched"  # its folder is not watched any more
    GONE = "gone"


_KEEPS_VERSION = (_State.WRITTEN, _State.UNUSABLE, _State.MISSING, _State.AWAY)
"""States of the archive that a package is of in which no older archive takes its place."""


class _View:
    """What was seen, by URL."""

    def __init__(self, seen: SeenFolders, files: Iterable[ArchiveFile]) -> None:
        self.files = {file.url: file for file in files}
        self._folders = {folder.url: folder for folder in seen.folders}
        self._inhabited = {_folder_url(file.url) for file in self.files.values() if file.digest is not None}
        self._gone = seen.gone

    def folder(self, url: str) -> Identity | None:
        """The folder in which the file is, as it was seen."""
        folder = self._folders.get(_folder_url(url))
        return None if folder is None else folder.identity

    def state(self, url: str, known: KnownFile, name: str) -> tuple[_State, str]:
        """What became of a file of the package ``name``, and what is wrong with it, in words."""
        file = self.files.get(url)
        if file is None:
            return self._absent(url, known)
        if file.trouble:
            return _State.UNUSABLE, file.trouble
        if file.digest is None:
            return _State.WRITTEN, ""
        other = package_of(file)
        if other == name:
            return _State.DECLARES, ""
        said = f"{file.path} is an archive of package {other!r} now: delete package {name!r} if it is not needed"
        return _State.OTHER, said

    def _absent(self, url: str, known: KnownFile) -> tuple[_State, str]:
        folder = self._folders.get(_folder_url(url))
        file = url.rpartition("/")[2]
        if folder is None:
            where = _folder_url(url).removeprefix("file://")
            said = f"{where}, which held {file}, is not watched any more: watch it again, or delete the package"
            return _State.UNWATCHED, said
        if folder.identity is None:
            return _State.AWAY, folder.trouble
        same = known.folder == folder.identity
        if not same and not self._succeeds(known.folder, folder):
            said = (
                f"{folder.path} is another folder than the one that held {file} (is its volume mounted?): bring that "
                "one back, or delete the package"
            )
            return _State.AWAY, said
        if url in self._gone:
            return _State.GONE, ""
        if same:
            return _State.MISSING, ""
        said = f"{folder.path} is another folder than the one that held {file}: without it the package is deleted soon"
        return _State.MISSING, said

    def is_where(self, known: KnownFile, url: str) -> bool:
        """Whether the folder is still the one in which the file was seen."""
        return known.folder is not None and known.folder == self.folder(url)

    def _succeeds(self, before: Identity | None, folder: SeenFolder) -> bool:
        """Whether the folder can speak for the one that it took the place of, in which a file was seen.

        One on another file system cannot. One on the same can once it holds archives: an empty one is what lies below
        a mount point.
        """
        if before is not None and folder.identity is not None and before.volume != folder.identity.volume:
            return False
        return folder.url in self._inhabited


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """What is to be done about one package."""

    delete: bool = False
    changed: CloacinaPackage | None = None  # None: nothing of it changes
    trouble: str = ""
    missing: frozenset[str] = frozenset()


def _judge(
    package: CloacinaPackage, remembered: Mapping[str, KnownFile], best: ArchiveFile | None, view: _View
) -> _Verdict:
    states = {url: view.state(url, known, package.name) for url, known in remembered.items()}
    missing = frozenset(url for url, (state, _) in states.items() if state in (_State.MISSING, _State.GONE))
    source = package.spec.source.url or ""
    if best is None:
        return _undeclared(package, remembered, states, missing)
    state, said = states.get(source, (_State.GONE, ""))
    if state in _KEEPS_VERSION and precedence(version_of(best)) <= precedence(remembered[source].version or ""):
        keep = package
    else:
        keep, said = package.with_spec(source=PackageSource(url=best.url), digest=best.digest), ""
    counting = {
        url: known
        for url, known in remembered.items()
        if states[url][0] not in (_State.GONE, _State.OTHER, _State.UNWATCHED)
    }
    return _Verdict(changed=_changed(package, keep, counting, view), trouble=said, missing=missing)


def _undeclared(
    package: CloacinaPackage,
    remembered: Mapping[str, KnownFile],
    states: Mapping[str, tuple[_State, str]],
    missing: frozenset[str],
) -> _Verdict:
    """Of a package that no archive declares: it goes if all its files did, or if it never worked and they are others'
    now."""
    works = package.status.active is not None
    held = {
        url: said
        for url, (state, said) in states.items()
        if state is not _State.GONE and (works or state is not _State.OTHER)
    }
    if not held:
        return _Verdict(delete=True)
    source = package.spec.source.url or ""
    said = held.get(source) or next((said for said in held.values() if said), "")
    counting = {
        url: replace(known, other=states[url][0] is _State.OTHER) for url, known in remembered.items() if url in held
    }
    return _Verdict(changed=_changed(package, package, counting, None), trouble=said, missing=missing)


def _changed(
    package: CloacinaPackage, wanted: CloacinaPackage, counting: Mapping[str, KnownFile], view: _View | None
) -> CloacinaPackage | None:
    """``wanted`` with what is to be remembered of its files; None: that is how it is."""
    files = dict(counting)
    if view is not None:
        files |= _declaring(package.name, view)
    annotations = {**package.metadata.annotations, FILES_ANNOTATION: _written(files)}
    wanted = wanted.with_metadata(annotations=annotations)
    same = (wanted.spec, annotations) == (package.spec, package.metadata.annotations)
    return None if same else wanted


def _declaring(name: str, view: _View) -> dict[str, KnownFile]:
    """The archives of a package that are there."""
    return {
        url: KnownFile(version=version_of(file), folder=view.folder(url))
        for url, file in view.files.items()
        if file.digest is not None and not file.trouble and package_of(file) == name
    }


def known_files(package: CloacinaPackage) -> dict[str, KnownFile]:
    """URL → what is remembered of an archive of the package."""
    try:
        entries = json.loads(package.metadata.annotations.get(FILES_ANNOTATION, "{}"))
        known = {
            str(url): KnownFile(
                version=entry.get("version"),
                folder=Identity(volume=str(entry["volume"]), inode=int(entry["inode"])) if "inode" in entry else None,
                other=bool(entry.get("other")),
            )
            for url, entry in entries.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):  # a person wrote something else there
        known = {}
    source = package.spec.source.url
    if source is not None and source not in known:
        active = package.status.active
        known[source] = KnownFile(version=None if active is None else active.version, folder=None)
    return known


def _written(files: Mapping[str, KnownFile]) -> str:
    newest = sorted(files, key=lambda url: (precedence(files[url].version or ""), url), reverse=True)[:FILES_KEPT]
    entries: dict[str, dict[str, object]] = {}
    for url in sorted(newest):
        known = files[url]
        entries[url] = {} if known.version is None else {"version": known.version}
        if known.folder is not None:
            entries[url] |= {"volume": known.folder.volume, "inode": known.folder.inode}
        if known.other:
            entries[url]["other"] = True
    return json.dumps(entries, sort_keys=True)


def _recalled(
    files: Iterable[ArchiveFile], remembered: Mapping[str, Mapping[str, KnownFile]]
) -> tuple[ArchiveFile, ...]:
    """The files, where one whose manifest cannot be read is of the package that it was of."""
    of = {
        url: (name, known) for name, entries in remembered.items() for url, known in entries.items() if not known.other
    }
    result = []
    for file in files:
        if file.package is None and file.url in of:
            name, known = of[file.url]
            file = replace(file, package=name, version=known.version or version_of(file))  # noqa: PLW2901
        result.append(file)
    return tuple(result)


def _package(name: str, file: ArchiveFile, view: _View) -> CloacinaPackage:
    annotations = {FILES_ANNOTATION: _written(_declaring(name, view))}
    return CloacinaPackage(
        metadata=ObjectMeta(name=name, labels={FOLDER_LABEL: FOLDER}, annotations=annotations),
        spec=PackageSpec(source=PackageSource(url=file.url), digest=file.digest),
    )


def _folder_url(url: str) -> str:
    return url.rpartition("/")[0]


def _stem(file: ArchiveFile) -> str:
    return file.path.rsplit("/", 1)[-1].removesuffix(SUFFIX)


def package_of(file: ArchiveFile) -> str:
    """The name of the package object that the file declares: by its manifest, else by its name."""
    if file.package is not None:
        return object_name(file.package)
    match = _NAMED.fullmatch(_stem(file))
    return object_name(match["name"] if match else _stem(file))


def version_of(file: ArchiveFile) -> str:
    """By its manifest, else by its name."""
    if file.version is not None:
        return file.version
    match = _NAMED.fullmatch(_stem(file))
    return match["version"] if match else "0.0.0"


def precedence(version: str) -> tuple[object, ...]:
    """A key that sorts versions as semver.org (item 11) orders them; anything else sorts before every version."""
    match = _SEMVER.fullmatch(version)
    if match is None:
        return (0, version)
    numbers = tuple(int(match[part]) for part in ("major", "minor", "patch"))
    if match["pre"] is None:
        return (1, numbers, 1, ())
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in match["pre"].split("."))
    return (1, numbers, 0, parts)
