"""Read what ``pyproject.toml`` says of a package: every fault at once. Imports nothing of the package."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloaca.errors import BuildError
from cloaca.packages.nearest import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT_NAME = "pyproject.toml"
REQUIRES_PYTHON = ">=3.10"
_TABLE = "[[tool.cloaca.triggers]]"
_TOOL_FIELDS = ("entry_module", "triggers")
_TRIGGER_FIELDS = ("name", "workflow", "poll_interval", "allow_concurrent", "config", "trigger_type")


@dataclass(frozen=True, kw_only=True)
class Project:
    """What the manifest takes from ``pyproject.toml``; whether the values are good is for the manifest's rules."""

    name: str
    version: str
    description: str | None  # None: not stated
    requires_python: str
    entry_module: str
    triggers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name → what its table states beyond the name."""
    dependencies: tuple[str, ...] = ()


def read_project(folder: Path) -> Project:
    """The project in ``folder``. Raises BuildError with everything that is missing or wrong."""
    path = folder / PROJECT_NAME
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BuildError(
            f"{folder} has no {PROJECT_NAME}: name the folder of a package, or start one: cloaca new NAME"
        ) from None
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"{path} is not TOML: {error}") from error
    faults: list[str] = []
    project = _table(document, "project", faults)
    tool = _table(_table(document, "tool", faults), "cloaca", faults)
    found = Project(
        name=_text(project, "name", "[project]", "my-package", faults),
        version=_text(project, "version", "[project]", "1.0.0", faults),
        description=_text(project, "description", "[project]", "", faults) or None
        if "description" in project
        else None,
        requires_python=_text(project, "requires-python", "[project]", REQUIRES_PYTHON, faults)
        if "requires-python" in project
        else REQUIRES_PYTHON,
        entry_module=_text(tool, "entry_module", "[tool.cloaca]", "my_package", faults),
        triggers=_triggers(tool, faults),
        dependencies=tuple(map(str, project.get("dependencies", ()))),
    )
    _refuse_unknown(tool, _TOOL_FIELDS, "[tool.cloaca]", faults)
    if faults:
        raise BuildError("\n".join(f"{path}: {fault}" for fault in faults))
    return found


def _triggers(tool: Mapping[str, Any], faults: list[str]) -> dict[str, dict[str, Any]]:
    tables = tool.get("triggers", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        faults.append(f"tool.cloaca.triggers must be tables: write {_TABLE} before each")
        return {}
    found: dict[str, dict[str, Any]] = {}
    for number, table in enumerate(tables, 1):
        where = f"{_TABLE} number {number}"
        name = _text(table, "name", where, "inbox_watcher", faults)
        _refuse_unknown(table, _TRIGGER_FIELDS, where, faults)
        if name in found:
            faults.append(f"{where}: the trigger {name!r} has a table already: make one of the two")
        try:
            json.dumps(table.get("config"), allow_nan=False)
        except (TypeError, ValueError) as error:
            faults.append(f"{where}: config cannot be JSON: {error}; write dates as text")
        found[name] = {key: value for key, value in table.items() if key != "name"}
    return found


def _table(document: Mapping[str, Any], name: str, faults: list[str]) -> Mapping[str, Any]:
    value = document.get(name, {})
    if isinstance(value, dict):
        return value
    faults.append(f"{name} must be a table")
    return {}


def _text(table: Mapping[str, Any], name: str, where: str, example: str, faults: list[str]) -> str:
    value = table.get(name)
    if isinstance(value, str) and (value.strip() or not example):
        return value
    if value is None:
        faults.append(f"{where} has no {name}: add a line such as {name} = {json.dumps(example)}")
    else:
        faults.append(f"{where}: {name} is {value!r}, but must be a text such as {json.dumps(example)}")
    return example


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str, faults: list[str]) -> None:
    for name in table:
        if name not in known:
            hint = did_you_mean(name, known) or f"; known are {', '.join(known)}"
            faults.append(f"{where}: unknown field {name!r}{hint}")
