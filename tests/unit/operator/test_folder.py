"""Which packages the watched folders declare, what is done about them, and what never takes one away."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from cloacina_operator.core.folder import (
    FILES_KEPT,
    ArchiveFile,
    Difference,
    Identity,
    SeenFolder,
    SeenFolders,
    desired,
    difference,
    known_files,
    precedence,
)

from cloaca.resources import CloacinaPackage, ObjectMeta
from cloaca.resources.names import FILES_ANNOTATION, FOLDER, FOLDER_LABEL
from cloaca.resources.package import ActivePackage, PackageSource, PackageSpec

PACKAGES = Identity(volume="disk", inode=7)


def url(name: str, folder: str = "/packages") -> str:
    return f"file://{folder}/{name}.cloacina"


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def file(name: str, package: str | None = None, version: str | None = None, **changes: Any) -> ArchiveFile:
    """A file in /packages; without ``package``: its manifest cannot be read."""
    folder = changes.pop("folder", "/packages")
    given = {"path": f"{folder}/{name}.cloacina", "url": url(name, folder), "digest": digest("a"), **changes}
    return ArchiveFile(**given, package=package, version=version)


def unusable(name: str, **changes: Any) -> ArchiveFile:
    return file(name, digest=None, trouble=f"{name} cannot be read", **changes)


def folder(path: str = "/packages", identity: Identity | None = PACKAGES) -> SeenFolder:
    trouble = "" if identity is not None else f"{path} is away"
    return SeenFolder(path=path, url=f"file://{path}", identity=identity, trouble=trouble)


def seen(*files: ArchiveFile, folders: tuple[SeenFolder, ...] = (folder(),), gone: tuple[str, ...] = ()) -> SeenFolders:
    return SeenFolders(folders=folders, files=files, gone=frozenset(url(name) for name in gone))


def applied(*files: ArchiveFile, works: bool = True, **changes: Any) -> CloacinaPackage:
    """The package that the folder makes of these files."""
    (made,) = difference(seen(*files, **changes), ()).create
    if not works:
        return made
    version = next(file.version or "1.0.0" for file in files if file.url == made.spec.source.url)
    active = ActivePackage(
        digest=made.spec.digest or "", version=version, since=datetime(2026, 1, 1, tzinfo=timezone.utc)
    )
    return made.with_status(active=active)


V1, V2 = file("data-1.0.0", "data", "1.0.0"), file("data-2.0.0", "data", "2.0.0", digest=digest("b"))
ODD = file("odd", "data", "1.0.0")  # whose name says nothing of its package
MARK = {FOLDER_LABEL: FOLDER}


@pytest.mark.parametrize(
    ("versions", "newest"),
    [
        pytest.param(["1.0.0", "2.0.0"], "2.0.0", id="major"),
        pytest.param(["1.10.0", "1.9.0"], "1.10.0", id="minor, as a number"),
        pytest.param(["1.0.2", "1.0.11"], "1.0.11", id="patch, as a number"),
        pytest.param(["1.0.0-rc.1", "1.0.0"], "1.0.0", id="a release beats what led to it"),
        pytest.param(["1.0.0-alpha", "1.0.0-beta"], "1.0.0-beta", id="words by letters"),
        pytest.param(["1.0.0-2", "1.0.0-11"], "1.0.0-11", id="numbers before a release, as numbers"),
        pytest.param(["1.0.0-alpha", "1.0.0-99"], "1.0.0-alpha", id="words beat numbers"),
        pytest.param(["1.0.0-alpha.1", "1.0.0-alpha"], "1.0.0-alpha.1", id="more parts beat fewer"),
        pytest.param(["1.1.0-rc.1", "1.0.9"], "1.1.0-rc.1", id="a prerelease of a newer one"),
        pytest.param(["nonsense", "0.0.1"], "0.0.1", id="what is no version is older than all"),
        pytest.param(["1.0", "0.0.1-a"], "0.0.1-a", id="two numbers are no version"),
    ],
)
def test_the_newest_version_counts(versions: list[str], newest: str) -> None:
    assert max(versions, key=precedence) == newest
    files = [file(f"f{number}", "data", version) for number, version in enumerate(versions)]
    assert desired(files)["data"].version == newest
    assert desired(reversed(files))["data"].version == newest


def test_build_metadata_gives_no_precedence() -> None:
    assert precedence("1.0.0+linux") == precedence("1.0.0")


@pytest.mark.parametrize(
    ("files", "declared"),
    [
        pytest.param([], {}, id="nothing"),
        pytest.param([ODD], {"data": "odd"}, id="named by its manifest, whatever the file is called"),
        pytest.param([V2, V1], {"data": "data-2.0.0"}, id="two versions"),
        pytest.param(
            [file("b", "data", "1.0.0"), file("a", "data", "1.0.0")],
            {"data": "b"},
            id="the same version twice: by path",
        ),
        pytest.param([file("data_a", "data_a", "1.0.0")], {"data-a": "data_a"}, id="a name becomes an object's"),
        pytest.param(
            [file("x", "one", "1.0.0"), file("y", "two", "1.0.0")], {"one": "x", "two": "y"}, id="two packages"
        ),
        pytest.param([file("broken")], {"broken": "broken"}, id="without a manifest it is named after its file"),
        pytest.param([file("data-3.0.0"), V2], {"data": "data-3.0.0"}, id="a version in the name of a broken file"),
        pytest.param([file("data"), V1], {"data": "data-1.0.0"}, id="a broken file without a version is the oldest"),
        pytest.param([unusable("data-3.0.0"), V2], {"data": "data-2.0.0"}, id="what cannot be read declares nothing"),
        pytest.param([file("data-3.0.0", digest=None)], {}, id="nor what is being written"),
    ],
)
def test_files_declare_packages(files: list[ArchiveFile], declared: dict[str, str]) -> None:
    chosen = {name: url(file) for name, file in declared.items()}
    assert {name: file.url for name, file in desired(files).items()} == chosen


def test_a_new_archive_makes_a_package_that_remembers_its_files() -> None:
    (made,) = difference(seen(V1, V2), ()).create
    assert (made.name, dict(made.metadata.labels)) == ("data", MARK)
    assert (made.spec.source.url, made.spec.digest) == (V2.url, digest("b"))
    remembered = {address: (known.version, known.folder) for address, known in known_files(made).items()}
    assert remembered == {V1.url: ("1.0.0", PACKAGES), V2.url: ("2.0.0", PACKAGES)}


def outcome(todo: Difference) -> str:
    """What is done about the one package, in a word, and what is said of it."""
    done = "deleted" if todo.delete else "kept"
    if todo.update:
        done = (todo.update[0].spec.source.url or "").rpartition("/")[2].removesuffix(".cloacina")
    said = (todo.troubles or {}).get("data", "")
    return f"{done}: {said}" if said else done


OTHER_DISK = Identity(volume="stick", inode=7)
OTHER_INODE = Identity(volume="disk", inode=8)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param([V1], seen(V1), "kept", id="nothing changed"),
        pytest.param([V1], seen(V1, V2), "data-2.0.0", id="a newer one beside it"),
        pytest.param([V1], seen(file("data-1.0.0", "data", "1.0.0", digest=digest("c"))), "data-1.0.0", id="replaced"),
        pytest.param([V1], seen(gone=("data-1.0.0",)), "deleted", id="removed"),
        pytest.param([V1], seen(), "kept", id="missing for a moment"),
        pytest.param([V1], seen(file("new", "data", "1.0.0"), gone=("data-1.0.0",)), "new", id="renamed"),
        pytest.param([V1], seen(file("new", "data", "1.0.0")), "data-1.0.0", id="renamed a moment ago"),
        pytest.param([V1, V2], seen(V1, gone=("data-2.0.0",)), "data-1.0.0", id="the newer one removed"),
        pytest.param([V1, V2], seen(V1), "kept", id="the newer one missing for a moment"),
        pytest.param([V1, V2], seen(gone=("data-1.0.0", "data-2.0.0")), "deleted", id="both removed"),
        pytest.param([ODD], seen(file("odd", digest=digest("c"))), "odd", id="half a copy over it is its candidate"),
        pytest.param([ODD], seen(unusable("odd")), "kept: odd cannot be read", id="unreadable"),
        pytest.param([ODD], seen(file("odd", digest=None)), "kept", id="being written"),
        pytest.param([V1, V2], seen(V1, unusable("data-2.0.0")), "kept: data-2.0.0 cannot be read", id="no step back"),
        pytest.param(
            [V1], seen(V1, unusable("data-2.0.0")), "kept: data-2.0.0 cannot be read", id="an update that is unreadable"
        ),
        pytest.param([V1, V2], seen(unusable("data-1.0.0"), V2), "kept", id="an old one that is unreadable"),
        pytest.param([V1], seen(folders=(folder(identity=None),)), "kept: /packages is away", id="the folder is away"),
        pytest.param(
            [V1],
            seen(folders=(folder(identity=None),), gone=("data-1.0.0",)),
            "kept: /packages is away",
            id="the folder goes away just when the file counts as removed",
        ),
    ],
)  # fmt: skip
def test_what_becomes_of_a_package_that_works(before: list[ArchiveFile], now: SeenFolders, expected: str) -> None:
    assert outcome(difference(now, [applied(*before)])) == expected


@pytest.mark.parametrize(
    ("now", "deleted"),
    [
        pytest.param(seen(gone=("data-1.0.0",)), True, id="the same folder"),
        pytest.param(seen(folders=(folder(identity=OTHER_DISK),), gone=("data-1.0.0",)), False, id="another volume"),
        pytest.param(
            seen(file("x", "x", "1.0.0"), folders=(folder(identity=OTHER_DISK),), gone=("data-1.0.0",)),
            False,
            id="another volume with archives",
        ),
        pytest.param(seen(folders=(folder(identity=OTHER_INODE),), gone=("data-1.0.0",)), False, id="an empty one"),
        pytest.param(
            seen(file("x", "x", "1.0.0"), folders=(folder(identity=OTHER_INODE),), gone=("data-1.0.0",)),
            True,
            id="another folder of the volume, with archives",
        ),
        pytest.param(seen(folders=(), gone=("data-1.0.0",)), False, id="not watched any more"),
    ],
)
def test_only_the_folder_that_held_the_file_can_say_that_it_is_gone(now: SeenFolders, deleted: bool) -> None:
    todo = difference(now, [applied(V1)])
    assert bool(todo.delete) is deleted
    assert ("data" in (todo.troubles or {})) is not deleted


def test_a_folder_that_took_the_place_of_another_one_is_given_more_time() -> None:
    now = seen(file("x", "x", "1.0.0"), folders=(folder(identity=OTHER_INODE),))
    todo = difference(now, [applied(V1)])
    assert (todo.delete, todo.missing, todo.replaced) == ((), {V1.url}, {V1.url})
    assert "without it the package is deleted soon" in (todo.troubles or {})["data"]
    todo = difference(seen(), [applied(V1)])
    assert (todo.delete, todo.missing, todo.replaced, todo.troubles) == ((), {V1.url}, set(), {})


def test_a_folder_that_is_back_as_another_one_is_remembered_as_that() -> None:
    package = applied(V1)
    (back,) = difference(seen(V1, folders=(folder(identity=OTHER_DISK),)), [package]).update
    assert (back.spec, known_files(back)[V1.url].folder) == (package.spec, OTHER_DISK)
    assert difference(seen(folders=(folder(identity=OTHER_DISK),), gone=("data-1.0.0",)), [back]).delete == (back,)


def test_an_archive_of_another_package_in_its_place_does_not_take_away_the_one_that_works() -> None:
    mine, other = applied(ODD), file("odd", "other", "1.0.0")
    todo = difference(seen(other), [mine])
    (held,) = todo.update
    assert ([made.name for made in todo.create], held.spec) == (["other"], mine.spec)
    assert "is an archive of package 'other' now" in (todo.troubles or {})["data"]
    # half a copy is of the package that the file is of now, and with the file both go
    half = difference(seen(file("odd", digest=digest("c"))), [held, todo.create[0]])
    assert [package.name for package in half.update if package.spec.digest == digest("c")] == ["other"]
    end = difference(seen(gone=("odd",)), [held, todo.create[0]])
    assert {package.name for package in end.delete} == {"data", "other"}


def test_what_never_worked_goes_when_its_file_turns_out_to_be_of_another_package() -> None:
    half = applied(file("odd", digest=digest("c")), works=False)
    todo = difference(seen(ODD), [half])
    assert ([made.name for made in todo.create], todo.delete) == (["data"], (half,))


def test_a_package_moves_to_a_watched_folder_when_its_own_is_not_watched_any_more() -> None:
    old = file("data-2.0.0", "data", "2.0.0", folder="/old")
    package = applied(old, folders=(folder("/old"),))
    (moved,) = difference(seen(V1), [package]).update
    assert (moved.spec.source.url, list(known_files(moved))) == (V1.url, [V1.url])


def test_a_package_does_not_step_back_while_the_folder_of_its_archive_is_away() -> None:
    stick = folder("/stick", OTHER_DISK)
    package = applied(V1, file("data-2.0.0", "data", "2.0.0", folder="/stick"), folders=(folder(), stick))
    assert package.spec.source.url == url("data-2.0.0", "/stick")
    away = (folder(), folder("/stick", None))
    assert outcome(difference(seen(V1, folders=away), [package])) == "kept: /stick is away"
    newer = file("data-3.0.0", "data", "3.0.0")
    assert outcome(difference(seen(V1, newer, folders=away), [package])) == "data-3.0.0"


def test_a_package_that_was_applied_by_hand_is_left_alone() -> None:
    by_hand = CloacinaPackage(
        metadata=ObjectMeta(name="data"),
        spec=PackageSpec(source=PackageSource(url="https://example.org/data.cloacina")),
    )
    todo = difference(seen(V1), [by_hand])
    assert (todo.create, todo.update, todo.delete) == ((), (), ())
    assert [package.name for package in todo.taken] == ["data"]


def test_what_people_changed_of_a_package_stays() -> None:
    package = applied(V1).with_spec(suspend=True).with_metadata(labels={**MARK, "team": "a"}, annotations={"note": "b"})
    (updated,) = difference(seen(V2), [package]).update
    assert (updated.spec.suspend, updated.metadata.labels["team"], updated.metadata.annotations["note"]) == (
        True,
        "a",
        "b",
    )


def test_a_file_that_belongs_to_no_package_is_told_with_its_path() -> None:
    todo = difference(seen(unusable("pipe")), ())
    assert (todo.create, todo.troubles) == ((), {})
    assert todo.strays == {"/packages/pipe.cloacina": "pipe cannot be read"}


@pytest.mark.parametrize("nonsense", ["", "[]", "{", '{"a": 1}', '{"a": {"inode": "x"}}'])
def test_an_annotation_that_a_person_broke_is_as_none(nonsense: str) -> None:
    package = applied(V1).with_metadata(annotations={FILES_ANNOTATION: nonsense})
    assert difference(seen(), [package]).delete == ()
    (mended,) = difference(seen(V1), [package]).update
    assert known_files(mended)[V1.url].folder == PACKAGES


def test_of_very_many_archives_the_newest_are_remembered() -> None:
    files = [file(f"data-1.0.{patch}", "data", f"1.0.{patch}") for patch in range(500)]
    (made,) = difference(seen(*files), ()).create
    assert len(known_files(made)) == FILES_KEPT
    assert url("data-1.0.499") in known_files(made)
    assert difference(seen(*files), [made]).update == ()
