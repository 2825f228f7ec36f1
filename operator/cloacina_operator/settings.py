"""Settings of the operator: read once, in a host, into one frozen object."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cloaca.authoring.duration import parse_duration
from cloaca.errors import CloacaError
from cloaca.home import Home, absolute
from cloaca.packages.archive import Limits
from cloaca.polling.schedule import JITTER
from cloaca.polling.workers import WORKER_MEMORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class SettingsError(CloacaError, ValueError):
    """A setting is unknown or has a value that it cannot have; the message says where it stands."""


@dataclass(frozen=True, kw_only=True)
class DaemonSettings:
    """Everything that can be set of the local daemon."""

    home: Home
    store: str | None = None
    """URL of the database that holds packages, triggers and runs; None: the SQLite file in the home."""
    watch_dirs: tuple[Path, ...] = ()
    """Folders besides ``packages`` in the home whose archives are deployed."""
    max_runs: int = 16
    """Runs whose processes are alive at once; the others wait."""
    max_runs_per_package: int | None = None
    """The same of one package; None: as many as of all."""
    allow_shared_folders: bool = False
    """Whether the home and the watched folders may be writable by other users, who can then run code as this one."""
    drain: float = 30.0
    """Seconds that polls and runs get to end when the daemon stops."""
    import_timeout: float = 60.0
    """Seconds that importing a package may take."""
    worker_memory: int = WORKER_MEMORY
    """Bytes that a process that calls trigger functions may have resident; over that it is replaced between polls."""
    jitter: float = JITTER
    """The largest part of its interval by which chance puts off a poll, at most a second."""
    metrics_port: int | None = None
    """Port on the loopback address where Prometheus reads figures; None: nobody measures."""
    log_level: str = "info"
    log_format: str = "text"
    limits: Limits = field(default_factory=Limits)


_LEVELS = ("debug", "info", "warning", "error")
_FORMATS = ("text", "json")


def read_settings(home: Home, overrides: dict[str, Any]) -> DaemonSettings:
    """The settings of ``config.toml`` in ``home`` (none: the defaults), with ``overrides`` of the command line.

    Raises SettingsError, which names the file and every fault in it.
    """
    settings = DaemonSettings(home=home)
    if home.config.exists():
        try:
            data = tomllib.loads(home.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{home.config}: {error}") from error
        settings = _with(settings, data, str(home.config))
    watch_dirs = (*settings.watch_dirs, *overrides.pop("watch_dirs", ()))
    return replace(settings, watch_dirs=watch_dirs, **overrides)


def _with(settings: DaemonSettings, data: dict[str, Any], where: str) -> DaemonSettings:
    faults: list[str] = []
    changes: dict[str, Any] = {}
    for key, value in data.items():
        read = _READERS.get(key)
        if read is None:
            faults.append(f"unknown setting {key!r}; known: {', '.join(sorted(_READERS))}")
            continue
        try:
            changes[key] = read(value)
        except (TypeError, ValueError, CloacaError) as error:
            faults.append(f"{key}: {error}")
    if faults:
        raise SettingsError(f"{where}: " + "; ".join(faults))
    return replace(settings, **changes)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"is {value!r}, but must be a text")
    return value


def _folders(value: object) -> tuple[Path, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"is {value!r}, but must be a list of paths")
    return tuple(absolute(Path(item)) for item in value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"is {value!r}, but must be an integer of at least 1")
    return value


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"is {value!r}, but must be true or false")
    return value


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise TypeError(f"is {value!r}, but must be a text such as '30s'")
    return parse_duration(value)


def _port(value: object) -> int:
    if _count(value) > 65_535:
        raise ValueError(f"is {value!r}, but must be at most 65535")
    return _count(value)


def _fraction(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"is {value!r}, but must be a number from 0 to 1")
    return float(value)


def _one_of(*accepted: str) -> Any:
    def read(value: object) -> str:
        if value not in accepted:
            raise ValueError(f"is {value!r}, but must be one of {', '.join(accepted)}")
        return str(value)

    return read


def _limits(value: object) -> Limits:
    if not isinstance(value, dict):
        raise TypeError("must be a table of limits")
    known = Limits.__dataclass_fields__
    for key, limit in value.items():
        if key not in known:
            raise ValueError(f"unknown limit {key!r}; known: {', '.join(known)}")
        _count(limit)
    return Limits(**value)


_READERS: dict[str, Any] = {
    "store": _text,
    "watch_dirs": _folders,
    "max_runs": _count,
    "max_runs_per_package": _count,
    "allow_shared_folders": _switch,
    "drain": _duration,
    "import_timeout": _duration,
    "worker_memory": _count,
    "jitter": _fraction,
    "metrics_port": _port,
    "log_level": _one_of(*_LEVELS),
    "log_format": _one_of(*_FORMATS),
    "limits": _limits,
}
