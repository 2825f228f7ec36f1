"""Read versions (semver) and requirements on Python (PEP 440). Pure; knows releases, nothing of pre-releases."""

from __future__ import annotations

import re

_SEMVER = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
)
_CLAUSE = re.compile(
    r"(?P<operator>~=|===|==|!=|<=|>=|<|>)\s*"
    r"v?(?P<release>[0-9]{1,9}(\.[0-9]{1,9}){0,9})(?P<rest>([-_.]?(a|b|c|rc|alpha|beta|pre|preview|post|rev|r|dev)"
    r"[-_.]?[0-9]{0,9})*(\+[a-z0-9]+([-_.][a-z0-9]+)*)?)(?P<wildcard>\.\*)?",
    re.IGNORECASE,
)
_LONGEST = 256


def is_semantic(version: str) -> bool:
    """Whether ``version`` is one as semver.org has it: ``1.2.3``, ``1.2.3-rc.1+build.5``."""
    return len(version) <= _LONGEST and _SEMVER.fullmatch(version) is not None


def specifier_fault(text: str) -> str | None:
    """What keeps ``text`` from being a PEP 440 specifier such as ``>=3.10,<4``; None: it is one."""
    if len(text) > _LONGEST:
        return f"is longer than {_LONGEST} characters"
    for part in text.split(","):
        clause = part.strip()
        if not clause:
            return "has an empty part" if text.strip() else "is empty"
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            return f"has the part {clause!r}, which is not an operator (such as >=) and a version"
        if match["wildcard"] and match["operator"] not in ("==", "!="):
            return f"has the part {clause!r}, but .* goes with == and != only"
        if match["operator"] == "~=" and "." not in match["release"]:
            return f"has the part {clause!r}, but ~= needs at least two numbers, such as ~=3.10"
    return None


def satisfies(release: tuple[int, ...], specifier: str) -> bool:
    """Whether a release such as ``(3, 11, 7)`` is one that a valid ``specifier`` allows."""
    return all(_allows(release, part.strip()) for part in specifier.split(","))


def _allows(release: tuple[int, ...], clause: str) -> bool:
    match = _CLAUSE.fullmatch(clause)
    if match is None:
        return False
    operator, wanted = match["operator"], tuple(int(number) for number in match["release"].split("."))
    if match["wildcard"]:
        same = _padded(release, len(wanted))[: len(wanted)] == wanted
        return same if operator == "==" else not same
    length = max(len(release), len(wanted))
    ours, theirs = _padded(release, length), _padded(wanted, length)
    if operator == "~=":
        prefix = len(wanted) - 1
        return ours >= theirs and ours[:prefix] == theirs[:prefix]
    return {
        "==": ours == theirs,
        "===": ours == theirs,
        "!=": ours != theirs,
        "<=": ours <= theirs,
        ">=": ours >= theirs,
        "<": ours < theirs,
        ">": ours > theirs,
    }[operator]


def _padded(release: tuple[int, ...], length: int) -> tuple[int, ...]:
    return release + (0,) * (length - len(release))
