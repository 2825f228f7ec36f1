"""Name the libraries that Cloacina itself loads where user code runs, and have every process use the installed ones.

A library is imported once per process. Some processes of a package have loaded a library of this list before the
package is imported, others have not, so a copy in ``vendor/`` would be used in some of them only.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from pathlib import Path

VENDOR = "vendor"
"""The folder in an archive whose modules can be imported beside those at its root."""

HOST_LIBRARIES = {
    "annotated_types": "annotated-types",
    "cloaca": "cloacina",
    "cloacina_operator": "cloacina",
    "cronsim": "cronsim",
    "h11": "h11",
    "prometheus_client": "prometheus-client",
    "psycopg": "psycopg",
    "psycopg_binary": "psycopg-binary",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "typing_extensions": "typing-extensions",
    "typing_inspection": "typing-inspection",
    "yaml": "PyYAML",
}
"""Top-level module → its distribution. The documentation (package-format.md) has the same list; a test compares what
the processes have loaded with it."""


def library_of(path: str) -> str | None:
    """The library of the list that a file of an archive belongs to; None: it belongs to no such library.

    >>> library_of("vendor/yaml/loader.py"), library_of("vendor/PyYAML-6.0.dist-info/METADATA")
    ('PyYAML', 'PyYAML')
    """
    parts = path.split("/")
    if parts[0] != VENDOR or len(parts) < 2:
        return None
    top = parts[1]
    if top.endswith((".dist-info", ".egg-info")):
        named = top.rpartition(".")[0].partition("-")[0].lower().replace("_", "-")
        return next((name for name in HOST_LIBRARIES.values() if name.lower() == named), None)
    return HOST_LIBRARIES.get(top.partition(".")[0])


def host_warnings(files: Iterable[str]) -> list[str]:
    """A sentence for each library in ``vendor/`` that is not used, because Cloacina's own is."""
    found = dict.fromkeys(library for path in files if (library := library_of(path)) is not None)
    return [_not_used(library) for library in sorted(found)]


def left_out_warnings(files: Iterable[str]) -> list[str]:
    """The same for libraries that packing leaves out."""
    return [f"{said}, and it is not packed" for said in host_warnings(files)]


def _not_used(library: str) -> str:
    return (
        f"{VENDOR}/ has a copy of {library}, which Cloacina itself loads in the processes of a package: the package "
        f"gets the installed {library} in every process, not the copy{_installed(library)}"
    )


def _installed(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f" (installed here: {version(library)})"
    except PackageNotFoundError:
        return ""


def load_host_libraries(root: Path) -> None:
    """Import the installed copy of each library of the list that ``root`` brings too, before ``root`` is on the path.

    A library that is not installed is left to the package.
    """
    for name in HOST_LIBRARIES:
        for folder in (root, root / VENDOR):
            if (folder / name).is_dir() or (folder / f"{name}.py").is_file():
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
