"""Say everything about an archive that can be said without running it. Pure but for memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cloaca.errors import ArchiveError, ManifestError
from cloaca.packages.agreement import check_static
from cloaca.packages.archive import Archive, Limits, read_archive
from cloaca.packages.host import VENDOR
from cloaca.packages.manifest import Manifest
from cloaca.packages.static import static_names


class Step(str, Enum):
    """How far an archive came before it was refused."""

    ARCHIVE = "archive"
    MANIFEST = "manifest"
    AGREEMENT = "agreement"


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was found. Without ``refused_at`` there is no fault so far: the import has the last word."""

    archive: Archive | None = None
    refused_at: Step | None = None
    faults: tuple[str, ...] = ()

    @property
    def manifest(self) -> Manifest | None:
        """Of an archive that could be read."""
        return None if self.archive is None else self.archive.manifest


def examine(data: bytes, limits: Limits | None = None) -> Examined:
    """Read the archive, its manifest, and compare the names in its code with the manifest's."""
    try:
        archive = read_archive(data, limits)
    except ManifestError as error:
        return Examined(refused_at=Step.MANIFEST, faults=(str(error),))
    except ArchiveError as error:
        return Examined(refused_at=Step.ARCHIVE, faults=(str(error),))
    limits = limits or Limits()
    size = sum(map(len, archive.sources.values()))
    if size > limits.source_bytes:
        too_long = (
            f"the Python files outside {VENDOR}/ have {size:,} bytes, over the limit of {limits.source_bytes:,}: "
            f"move modules that define no tasks and triggers to {VENDOR}/"
        )
        return Examined(archive=archive, refused_at=Step.ARCHIVE, faults=(too_long,))
    vendored = any(path.startswith(f"{VENDOR}/") for path in archive.files)
    names = static_names(archive.sources, archive.manifest.entry_module, has_vendor=vendored)
    stem = archive.manifest.entry_module.replace(".", "/")
    if not vendored and not {f"{stem}.py", f"{stem}/__init__.py"} & set(archive.files):
        missing = f"python.entry_module is {archive.manifest.entry_module!r}, but the archive has no {stem}/__init__.py"
        return Examined(archive=archive, refused_at=Step.ARCHIVE, faults=(missing,))
    faults = (*names.faults, *(str(difference) for difference in check_static(archive.manifest, names)))
    return Examined(archive=archive, refused_at=Step.AGREEMENT if faults else None, faults=faults)
