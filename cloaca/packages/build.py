"""Pack a folder into an archive: the same files give the same bytes, on every machine.

What is packed: the entry package (or module), and ``vendor/``. It is imported once, in a process of its own, from a
copy of exactly those files, so what is missing in the archive is missing here already.
"""

from __future__ import annotations

import bz2
import csv
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cloaca.errors import AgreementError, ArchiveError, BuildError
from cloaca.packages.agreement import check_registered, repeated_names
from cloaca.packages.archive import Limits, check_shadowing, digest_of, read_archive
from cloaca.packages.host import VENDOR, left_out_warnings, library_of
from cloaca.packages.inspection import IMPORT_TIMEOUT, inspect_package
from cloaca.packages.inventory import Inventory, TriggerItem
from cloaca.packages.load import MANIFEST_NAME
from cloaca.packages.manifest import FORMAT_VERSION, TARGETS, parse_manifest
from cloaca.packages.nearest import did_you_mean
from cloaca.packages.project import PROJECT_NAME, Project, read_project
from cloaca.packages.scratch import scratch_folder
from cloaca.packages.versions import satisfies, specifier_fault

SUFFIX = ".cloacina"
EPOCH = 315_532_800
"""1980-01-01: the time of everything in an archive, unless SOURCE_DATE_EPOCH says another one."""

_NATIVE = (".so", ".dylib", ".pyd")
_LEFT_OUT = ("__pycache__",)
_LEFT_OUT_ENDINGS = (".pyc", ".pyo", SUFFIX)  # an archive that was written into the package is no part of the next
_METADATA = (".dist-info", ".egg-info")
_OF_THE_INSTALLATION = ("direct_url.json", "INSTALLER", "REQUESTED")
"""Files of ``.dist-info`` that tell how and from where this copy was installed, with paths of this machine."""
_HIDDEN_LIBRARIES = (".dylibs", ".libs")  # where tools that repair wheels put shared libraries


@dataclass(frozen=True, kw_only=True)
class Built:
    """An archive that was written."""

    path: Path
    digest: str
    """``sha256:…`` of its bytes."""
    warnings: tuple[str, ...] = ()


def build_package(folder: Path, output: Path, limits: Limits | None = None) -> Built:
    """Pack ``folder`` into ``output``: a file if it ends in ``.cloacina``, else a folder, which is made.

    The archive appears there whole or not at all. Raises PackageError: BuildError for the folder and its
    ``pyproject.toml``, LoadError for the import, ManifestError, AgreementError, ArchiveError.
    """
    project = read_project(folder)
    _check_python(project)
    files, not_packed = _files(folder, project.entry_module)
    inventory = _imported(files, project)
    repeated = repeated_names(inventory)
    if repeated:  # before the manifest, whose one list of tasks cannot say which workflows they are of
        raise AgreementError("\n".join(map(str, repeated)))
    epoch = _epoch()
    manifest = parse_manifest(_manifest(project, inventory, files, epoch))
    report = check_registered(manifest, inventory)
    if report.disagreements:
        raise AgreementError("\n".join(str(disagreement) for disagreement in report.disagreements))
    data = _packed({MANIFEST_NAME: manifest.to_json_bytes(), **files}, epoch)
    read_archive(data, limits)  # nobody shall accept what a daemon would refuse
    path = output if output.suffix == SUFFIX else output / f"{manifest.name}-{manifest.version}{SUFFIX}"
    _write(path, data)
    warnings = (*_unpacked_needs(project, files), *not_packed, *report.warnings)
    return Built(path=path, digest=digest_of(data), warnings=warnings)


def _check_python(project: Project) -> None:
    release = ".".join(map(str, sys.version_info[:3]))
    if specifier_fault(project.requires_python) is None and not satisfies(release, project.requires_python):
        raise BuildError(
            f"{PROJECT_NAME}: requires-python is {project.requires_python!r}, but this is Python {release}: "
            "pack it with a Python that can import it"
        )


# --- files --------------------------------------------------------------------------------------------------------


def _files(folder: Path, entry_module: str) -> tuple[dict[str, bytes], list[str]]:
    """(path in the archive → content, of the entry package and of ``vendor/``; warnings about what is left out)."""
    top = entry_module.partition(".")[0]
    for base in (folder, folder / "src"):
        if (base / top / "__init__.py").is_file() or (base / f"{top}.py").is_file():
            break
    else:
        raise BuildError(
            f"{folder} has neither {top}/__init__.py nor {top}.py, nor below src/: entry_module of {PROJECT_NAME} is "
            f"{entry_module!r}; name the module with the tasks and triggers"
        )
    found = _read(base, [base / top] if (base / top).is_dir() else [base / f"{top}.py"])
    if (folder / VENDOR).is_dir():
        found |= _read(folder, [folder / VENDOR])
    _refuse_unreadable_names(found)
    for path in found:
        check_shadowing(path)
    warnings = [*left_out_warnings(found), *_hook_warnings(found)]
    found = {path: content for path, content in sorted(found.items()) if library_of(path) is None}
    for path in [path for path in found if path.startswith(f"{VENDOR}/") and path.endswith(".dist-info/RECORD")]:
        found[path] = _record(found[path], found)
    return found, warnings


def _refuse_unreadable_names(paths: Iterable[str]) -> None:
    bad = [path for path in paths if not _is_unicode(path)]
    if bad:
        listed = "\n".join(f"  {path.encode('utf-8', 'surrogateescape')!r}" for path in bad[:20])
        raise BuildError(f"the names of these files are not UTF-8, which an archive needs: rename them\n{listed}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _hook_warnings(paths: Iterable[str]) -> list[str]:
    """Python reads ``.pth`` files in site-packages only, and nothing of ``vendor/`` is there."""
    hooks = [path for path in paths if path.startswith(f"{VENDOR}/") and path.count("/") == 1 and path.endswith(".pth")]
    if not hooks:
        return []
    return [f"{', '.join(hooks)}: Python does not run .pth files of {VENDOR}/: what they set up is missing"]


def _record(content: bytes, files: Mapping[str, bytes]) -> bytes:
    """``RECORD`` with the lines of files that are packed: others (compiled files, scripts) differ between machines."""
    rows = csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape")))
    kept = [row for row in rows if row and f"{VENDOR}/{row[0]}" in files]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(kept)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _read(base: Path, starts: Iterable[Path]) -> dict[str, bytes]:
    """Contents below ``starts`` by their paths relative to ``base``. A link to a file in it is packed as that file."""
    home = base.resolve()
    found: dict[str, bytes] = {}
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if _left_out(path, base):
            continue
        try:
            if path.is_symlink() and not (path.resolve(strict=True).is_relative_to(home) and path.is_file()):
                raise BuildError(f"{path}: is a link to a folder or out of {base}: replace it by what it names")
            if path.is_dir():
                waiting += path.iterdir()
            elif path.is_file():
                found[path.relative_to(base).as_posix()] = path.read_bytes()
            else:
                raise BuildError(f"{path}: is neither file nor folder: remove it, or keep it elsewhere")
        except RuntimeError as error:  # what Python before 3.13 raises for links in a circle
            raise BuildError(f"{path} cannot be read: it is a link that leads to itself") from error
        except OSError as error:
            raise BuildError(f"{path} cannot be read: {error.strerror or error}") from error
    return found


def _left_out(path: Path, base: Path) -> bool:
    name = path.name
    if name.endswith(_METADATA) or path.parent.name.endswith(_METADATA):  # metadata of vendored libraries is packed
        return path.relative_to(base).parts[0] != VENDOR or name in _OF_THE_INSTALLATION
    hidden = name.startswith(".") and name not in _HIDDEN_LIBRARIES
    return hidden or name in _LEFT_OUT or name.endswith(_LEFT_OUT_ENDINGS)


def _imported(files: Mapping[str, bytes], project: Project) -> Inventory:
    with scratch_folder() as folder:
        root = folder / "package"
        for path, content in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        named = {"package": {"name": project.name}}  # as much of the manifest as the import may need
        (root / MANIFEST_NAME).write_text(json.dumps(named), encoding="utf-8")
        return inspect_package(root, project.entry_module, IMPORT_TIMEOUT)


# --- the manifest -------------------------------------------------------------------------------------------------


def _manifest(project: Project, inventory: Inventory, files: Mapping[str, bytes], epoch: int) -> bytes:
    """The manifest's bytes; whether its values are good is for its rules. Raises BuildError."""
    package: dict[str, Any] = {"name": project.name, "version": project.version}
    if project.description is not None:
        package["description"] = project.description
    document = {
        "format_version": FORMAT_VERSION,
        "package": {**package, "fingerprint": _fingerprint(files), "targets": _targets(files)},
        "language": "python",
        "python": {"requires_python": project.requires_python, "entry_module": project.entry_module},
        "tasks": [
            {
                "id": task.id,
                "function": task.function,
                "dependencies": list(task.dependencies),
                **({"description": task.description} if task.description else {}),
                "retries": task.retries,
                **({} if task.timeout_seconds is None else {"timeout_seconds": task.timeout_seconds}),
            }
            for workflow in inventory.workflows
            for task in workflow.tasks
        ],
        "triggers": _triggers(project, inventory),
        "created_at": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return json.dumps(document).encode()


def _triggers(project: Project, inventory: Inventory) -> list[dict[str, Any]]:
    """One entry for each trigger that the code registers, with what its table states. Raises BuildError."""
    names = [item.name for item in inventory.triggers]
    known = ", ".join(names) or "none"
    faults = [
        f"{PROJECT_NAME}: [[tool.cloaca.triggers]] has a table for {name!r}, but the code has no such trigger"
        f"{did_you_mean(name, names) or f'; it has: {known}'}"
        for name in project.triggers
        if name not in names
    ]
    entries = []
    for item in inventory.triggers:
        stated = project.triggers.get(item.name, {})
        workflow = stated.get("workflow", item.workflow) or _only_workflow(inventory)
        if workflow is None:
            faults.append(_workflow_untold(item, inventory, has_table=item.name in project.triggers))
        entry = {
            "name": item.name,
            "trigger_type": stated.get("trigger_type", "python"),
            "workflow": workflow,
            "poll_interval": stated.get("poll_interval", item.poll_interval),
            "allow_concurrent": stated.get("allow_concurrent", item.allow_concurrent),
        }
        entries.append({**entry, "config": stated["config"]} if "config" in stated else entry)
    if faults:
        raise BuildError("\n".join(faults))
    return entries


def _only_workflow(inventory: Inventory) -> str | None:
    return inventory.workflows[0].name if len(inventory.workflows) == 1 else None


def _workflow_untold(item: TriggerItem, inventory: Inventory, *, has_table: bool) -> str:
    known = ", ".join(workflow.name for workflow in inventory.workflows) or "none"
    example = inventory.workflows[0].name if inventory.workflows else "my_workflow"
    where = "its table" if has_table else f'a table [[tool.cloaca.triggers]] with name = "{item.name}"'
    place = "" if item.place is None else f" ({item.place})"
    return (
        f"trigger {item.name!r}{place} does not say which workflow it fires (the package has: {known}): add the line "
        f'workflow = "{example}" to {where} in {PROJECT_NAME}'
    )


def _fingerprint(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for path, content in files.items():
        whole.update(f"{hashlib.sha256(content).hexdigest()}  {path}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _targets(files: Mapping[str, bytes]) -> list[str]:
    """Every target; only this machine's where the archive holds compiled code."""
    if not any(path.endswith(_NATIVE) for path in files):
        return list(TARGETS)
    system = {"linux": "linux", "darwin": "macos"}.get(sys.platform, sys.platform)
    machine = {"aarch64": "arm64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    return [f"{system}-{machine}"]


def _unpacked_needs(project: Project, files: Mapping[str, bytes]) -> list[str]:
    if not project.dependencies or any(path.startswith(f"{VENDOR}/") for path in files):
        return []
    said = f"{PROJECT_NAME}: dependencies are not packed ({', '.join(project.dependencies)}): put them into {VENDOR}/ "
    return [f"{said}(pip install --target {VENDOR} …), or run the package where they are installed"]


# --- bytes --------------------------------------------------------------------------------------------------------


def _epoch() -> int:
    stated = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not stated:
        return EPOCH
    if not (stated.isascii() and stated.isdigit()) or int(stated) > 253_402_300_799:
        raise BuildError(f"SOURCE_DATE_EPOCH is {stated!r}, but must be a number of seconds since 1970; or unset it")
    return int(stated)


def _packed(files: Mapping[str, bytes], epoch: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = len(content), 0o644, epoch
            tar.addfile(info, io.BytesIO(content))
    return bz2.compress(buffer.getvalue(), 9)


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be written: {error.strerror or error}") from error
