"""Find the name that somebody probably meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable

_COMPARED = 500  # comparing is slow, and a list this long comes from a program, which makes no typing errors


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that is written most like ``name``; None where none is close.

    >>> nearest("inbox_watcher", ["outbox", "inbox_wacther"])
    'inbox_wacther'
    """
    known = list(dict.fromkeys(candidates))
    plain = _plain(name)
    for candidate in known:
        if _plain(candidate) == plain and candidate != name:
            return candidate
    if len(known) > _COMPARED or len(name) > 100:
        return None
    from difflib import get_close_matches  # needed only where something is wrong already

    matches = get_close_matches(name, [candidate for candidate in known if candidate != name], n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """``: did you mean 'x'?``, or nothing: for the end of a sentence."""
    match = nearest(name, candidates)
    return "" if match is None else f": did you mean {match!r}?"


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")
