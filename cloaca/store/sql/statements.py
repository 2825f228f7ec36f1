"""The named statements of a ``.sql`` file: each stands under a line ``-- name --``."""

from __future__ import annotations

import re
from importlib.resources import files

_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)


def read(file: str) -> str:
    """The text of a file beside this module."""
    return files(__package__).joinpath(file).read_text(encoding="utf-8")


def named(text: str) -> dict[str, str]:
    """Name → statement, without its comments and its semicolon: one may become a part of another."""
    parts = _NAME.split(text)
    return {
        name: _COMMENT.sub("", body).strip().removesuffix(";")
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }
