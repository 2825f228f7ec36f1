"""Make an archive of a folder: the same files give the same bytes on every machine. Deploys nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cloaca.errors import LoadError, PackageError
from cloaca.packages.agreement import resolve_workflow
from cloaca.packages.archive import digest_of, read_archive
from cloaca.packages.faults import MANIFEST_NAME
from cloaca.packages.inspection import inspect_package
from cloaca.packages.inventory import Inventory, TriggerItem
from cloaca.packages.load import VENDOR
from cloaca.packages.manifest import FORMAT_VERSION, TARGETS
from cloaca.packages.nearest import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".cloacina"
IMPORT_TIMEOUT = 60.0  # seconds
_LEFT_OUT = ("__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache")
_LEFT_OUT_ENDINGS = (".pyc", ".pyo", SUFFIX)
_FIRST_MOMENT = 315_532_800  # 1980-01-01, where neither SOURCE_DATE_EPOCH nor anything else says when


@dataclass(frozen=True, kw_only=True)
class Built:
    """An archive that was written."""

    path: Path
    digest: str
    warnings: tuple[str, ...] = ()


def build_package(folder: Path, output: Path) -> Built:
    """Pack ``folder`` into ``output``: a file where that ends in .cloacina, else a folder, which is made if need be.

    Raises PackageError where pyproject.toml, the code or what they say together would not be accepted.
    """
    project = _project(folder)
    settings = project["tool"]["cloaca"]
    entry_module = str(settings["entry_module"])
    files = _files(folder, entry_module)
    with tempfile.TemporaryDirectory(prefix="cloaca-") as scratch:  # the import must see what the archive will hold
        for path, data in files.items():
            (Path(scratch) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / path).write_bytes(data)
        try:
            inventory = inspect_package(Path(scratch), entry_module, IMPORT_TIMEOUT)
        except LoadError as error:
            raise LoadError(f"{folder}: {error}\n{error.traceback_text}".rstrip(), error.traceback_text) from error
    manifest, warnings = _manifest(folder, project, inventory, files)
    data = _tar({MANIFEST_NAME: json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n", **files})
    read = read_archive(data)  # refuses what a daemon would refuse
    name = f"{read.manifest.name}-{read.manifest.version}{SUFFIX}"
    target = output if output.suffix == SUFFIX and not output.is_dir() else output / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")  # a daemon may watch the folder
        partial.write_bytes(data)
        partial.replace(target)
    except OSError as error:
        raise PackageError(f"{target} cannot be written: {error.strerror or error}") from error
    return Built(path=target, digest=digest_of(data), warnings=warnings)


def _project(folder: Path) -> Mapping[str, Any]:
    path = folder / "pyproject.toml"
    try:
        project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PackageError(
            f"{path}: {error.strerror or error}: a package is a folder with a pyproject.toml; `cloaca new` makes one"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PackageError(f"{path}: {error}") from error
    faults = [
        f"{path}: {where} is missing"
        for where in ("project.name", "project.version", "tool.cloaca.entry_module")
        if not isinstance(_at(project, where), str)
    ]
    if faults:
        raise PackageError("\n".join(faults))
    return project


def _at(project: Mapping[str, Any], where: str) -> Any:
    found: Any = project
    for step in where.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _files(folder: Path, entry_module: str) -> dict[str, bytes]:
    """Path in the archive → content: the package or module at the top of ``entry_module``, and vendor/, sorted."""
    top = entry_module.partition(".")[0]
    found: dict[str, bytes] = {}
    module = folder / f"{top}.py"
    if not (folder / top).is_dir() and not module.is_file():
        raise PackageError(f"{folder}: there is neither {top}/ nor {top}.py, though entry_module is {entry_module!r}")
    if module.is_file() and not (folder / top).is_dir():
        found[module.name] = module.read_bytes()
    for part in (top, VENDOR):
        for path in sorted((folder / part).rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and path.suffix not in _LEFT_OUT_ENDINGS and not set(inside.parts) & set(_LEFT_OUT):
                found[inside.as_posix()] = path.read_bytes()
    return dict(sorted(found.items()))


def _manifest(
    folder: Path, project: Mapping[str, Any], inventory: Inventory, files: Mapping[str, bytes]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(manifest.json, warnings). Names come from the decorators, the rest from pyproject.toml."""
    about, settings = project["project"], project["tool"]["cloaca"]
    stated = {entry.get("name"): entry for entry in settings.get("triggers", ())}
    names = [item.name for item in inventory.triggers]
    unknown = [
        f"{folder / 'pyproject.toml'}: [[tool.cloaca.triggers]] names {name!r}, which no decorator in the code "
        f"registers{did_you_mean(str(name), names) or '; it has: ' + (', '.join(names) or 'none')}"
        for name in stated
        if name not in names
    ]
    if unknown:
        raise PackageError("\n".join(unknown))
    triggers = [_trigger(item, stated.get(item.name, {}), inventory, str(about["name"])) for item in inventory.triggers]
    package: dict[str, Any] = {"name": about["name"], "version": about["version"]}
    if about.get("description"):
        package["description"] = about["description"]
    package |= {"fingerprint": _fingerprint(files), "targets": list(TARGETS)}
    tasks = [
        {
            "id": task.id,
            "function": task.function,
            "dependencies": list(task.dependencies),
            **({"description": task.description} if task.description else {}),
        }
        for workflow in inventory.workflows
        for task in workflow.tasks
    ]
    return {
        "format_version": FORMAT_VERSION,
        "package": package,
        "language": "python",
        "python": {
            "requires_python": about.get("requires-python", ">=3.10"),
            "entry_module": settings["entry_module"],
        },
        "tasks": tasks,
        "triggers": triggers,
        "created_at": datetime.fromtimestamp(_moment(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }, ()


def _trigger(item: TriggerItem, stated: Mapping[str, Any], inventory: Inventory, package: str) -> dict[str, Any]:
    known = inventory.task_ids_by_workflow()
    workflow = stated.get("workflow") or item.workflow
    if workflow is None and len(known) == 1:
        workflow = next(iter(known))
    if workflow is None or resolve_workflow(str(workflow), package, known) is None:
        said = "does not say which workflow it fires" if workflow is None else f"fires {workflow!r}, which is none"
        raise PackageError(
            f"trigger {item.name!r} {said}; the package has: {', '.join(known) or 'none'}. "
            f"Write workflow = … for it under [[tool.cloaca.triggers]] in pyproject.toml"
        )
    return {
        "name": item.name,
        "trigger_type": "python",
        "workflow": workflow,
        "poll_interval": stated.get("poll_interval", item.poll_interval),
        "allow_concurrent": stated.get("allow_concurrent", item.allow_concurrent),
        **({"config": stated["config"]} if "config" in stated else {}),
    }


def _fingerprint(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for path, data in files.items():
        whole.update(f"{path}\0{len(data)}\0".encode() + data)
    return f"sha256:{whole.hexdigest()}"


def _moment() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given) if given.isascii() and given.isdigit() else _FIRST_MOMENT


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2", format=tarfile.PAX_FORMAT) as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.mtime = len(data), 0o644, _moment()
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
