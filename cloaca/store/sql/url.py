"""What a database URL means. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from cloaca.errors import StoreUnavailable

MEMORY = ":memory:"

_SYNCHRONOUS = ("NORMAL", "FULL", "EXTRA")
_MODES = ("rwc", "rw", "ro")


@dataclass(frozen=True, kw_only=True)
class SqliteUrl:
    """A SQLite database."""

    path: str  # ":memory:" or a file
    mode: str = "rwc"  # rwc: made if it is not there; rw: must be there; ro: read only
    synchronous: str = "NORMAL"
    busy_timeout: float = 30.0  # seconds

    @property
    def memory(self) -> bool:
        """Whether it lives in this process alone."""
        return self.path == MEMORY


def parse_url(url: str) -> SqliteUrl:
    """What ``url`` means: ``:memory:``, ``sqlite://``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
    ``sqlite://path?mode=rwc``, or a bare path.

    Raises StoreUnavailable, which says what is wrong and what is accepted.
    """
    if not isinstance(url, str) or not url.strip():
        raise StoreUnavailable(f"{url!r} is no database URL: write :memory:, sqlite:///app.db or a path")
    scheme, found, rest = url.partition("://")
    if not found:
        if url == MEMORY or not url.startswith("sqlite:"):
            return SqliteUrl(path=url)
        rest = url.removeprefix("sqlite:")
    elif scheme != "sqlite":
        kind = "PostgreSQL is not supported by this version" if scheme.startswith("postgres") else "it is unknown"
        raise StoreUnavailable(f"{url!r}: {kind}; write :memory:, sqlite:///app.db or a path")
    path, _, query = rest.partition("?")
    path = unquote(path)
    if path.startswith("/") and found:
        path = path[1:]  # sqlite:///app.db is relative, sqlite:////app.db absolute, as in SQLAlchemy's URLs
    return SqliteUrl(path=path or MEMORY, **_options(url, query))


def _options(url: str, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        match key.removeprefix("_"):
            case "mode" if value in _MODES:
                options["mode"] = value
            case "journal_mode" | "journal" if value.upper() == "WAL":
                pass  # ours is always WAL
            case "synchronous" | "sync" if value.upper() in _SYNCHRONOUS:
                options["synchronous"] = value.upper()
            case "busy_timeout" | "timeout" if value.isdigit():
                options["busy_timeout"] = int(value) / 1000
            case "foreign_keys" | "fk":
                pass  # the schema has none
            case _:
                raise StoreUnavailable(
                    f"{url!r}: unknown option {key}={value}; known: mode={'|'.join(_MODES)}, _journal_mode=WAL, "
                    f"_synchronous={'|'.join(_SYNCHRONOUS)}, _busy_timeout=<milliseconds>"
                )
    return options
