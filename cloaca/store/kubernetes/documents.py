"""Parse what an API server answers. It accepts objects that are nested deeper than Python's parser goes.

What is nested deeper than ``DEPTH`` is replaced by null: the object that holds it cannot be read by our types either,
which stop at half of that, and so is left out, and all others of the same answer are read.
"""

from __future__ import annotations

import json
import re
from typing import Any

DEPTH = 400  # levels, with those of the list around an object
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def parsed(text: bytes) -> Any:
    """The value of a JSON text. Raises ValueError if it is not JSON.

    >>> parsed(b'{"items": []}')
    {'items': []}
    """
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(_cut(text))


def _cut(text: bytes) -> bytes:
    """``text`` with null in place of each array and object that begins at level ``DEPTH``."""
    pieces, kept, depth = [], 0, 0
    for token in _TOKEN.finditer(text):
        sign = token.group()
        if sign in (b"[", b"{"):
            depth += 1
            if depth == DEPTH:
                pieces += [text[kept : token.start()], b"null"]
        elif sign in (b"]", b"}"):
            if depth == DEPTH:
                kept = token.end()
            depth -= 1
    return b"".join([*pieces, text[kept:]])
