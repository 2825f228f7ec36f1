"""Read JSON that is given on the command line, as text or as ``@file``. Says what is wrong with it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from cloaca.errors import CloacaError
from cloaca.resources.documents import CONTEXT_LIMIT


def text_argument(argument: str) -> str:
    """An argument of the command line, which is UTF-8 even where the locale has another encoding and cannot read it."""
    try:
        return os.fsencode(argument).decode("utf-8") if any("\udc80" <= c <= "\udcff" for c in argument) else argument
    except UnicodeDecodeError:
        return argument


def standard_input() -> str:
    """All of standard input, which is UTF-8 whatever the locale says. Raises UnicodeDecodeError if it is not."""
    raw = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if raw is None else raw.read().decode("utf-8")


def json_object(text: str | None, option: str) -> dict[str, Any]:
    """The object that ``option`` gives: JSON text, ``@file`` or ``@-`` for standard input; nothing: an empty one."""
    if text is None:
        return {}
    said = _contents(text[1:], option) if text.startswith("@") else text_argument(text)
    try:
        value = json.loads(said)
    except ValueError as error:
        raise CloacaError(f'{option}: not JSON: {error}; write it like \'{{"file": "a.parquet"}}\', or @FILE') from None
    if not isinstance(value, dict):
        raise CloacaError(
            f'{option}: must be a JSON object such as \'{{"file": "a.parquet"}}\', not {said.strip()[:40]!r}'
        )
    return value


def run_context(text: str | None) -> dict[str, Any]:
    """What ``--context`` gives, within the limit of a run."""
    context = json_object(text, "--context")
    size = len(json.dumps(context, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))
    if size > CONTEXT_LIMIT:
        raise CloacaError(
            f"--context: {size:,} bytes as JSON, over the limit of {CONTEXT_LIMIT:,}: store the data elsewhere and "
            "pass a reference to it"
        )
    return context


def _contents(name: str, option: str) -> str:
    try:
        return standard_input() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CloacaError(f"{option}: {name} cannot be read: {reason}") from error
