"""Read the files that ``-f`` names: everything in all of them, or every fault of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cloaca.cli.values import standard_input
from cloaca.errors import CloacaError, Invalid
from cloaca.resources import Ref, Resource
from cloaca.resources.documents import load_documents

SUFFIXES = (".yaml", ".yml", ".json")

FilesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filename", "-f", metavar="FILE", help="A file, a folder of files, or - for standard input; repeatable."
    ),
]


def read_files(names: Sequence[str], namespace: str) -> tuple[list[Resource[Any, Any]], list[str]]:
    """(objects, faults) of all the files. Raises CloacaError where a file cannot be read at all."""
    resources: list[Resource[Any, Any]] = []
    faults: list[str] = []
    places: dict[Ref, str] = {}
    for source, text in _texts(names):
        try:
            found = load_documents(text, source, namespace)
        except Invalid as error:
            faults += str(error).splitlines()
            continue
        for resource in found:
            first = places.setdefault(resource.ref, source)
            if first != source:
                faults.append(f"{source}: {resource.ref}: declared in {first} too: remove one of them")
        resources += found
    if not resources and not faults:
        raise CloacaError(f"there are no objects in {', '.join(names)}")
    return resources, faults


def _texts(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    if list(names).count("-") > 1:
        raise CloacaError("standard input can be read once: give -f - one time only")
    for name in names:
        if name == "-":
            try:
                yield "<stdin>", standard_input()
            except UnicodeDecodeError as error:
                raise CloacaError(f"standard input: not UTF-8 at byte {error.start}: is it YAML or JSON?") from error
            continue
        for path in _paths(Path(name)):
            try:
                yield str(path), path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise CloacaError(f"{path}: not UTF-8 at byte {error.start}: is it a YAML or JSON file?") from error
            except OSError as error:
                raise CloacaError(f"{path}: cannot be read: {error.strerror or error}") from error


def _paths(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not found:
        raise CloacaError(f"{path}: the folder has no file that ends in {', '.join(SUFFIXES)}")
    return found
