"""Read versions (semver) and requirements on Python (PEP 440). Pure."""

from __future__ import annotations

import re
import sys

from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet

_SEMVER = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
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
        try:
            Specifier(clause)
        except InvalidSpecifier:
            return f"has the part {clause!r}, which is not an operator (such as >=) and a version"
    return None


def satisfies(version: str, specifier: str) -> bool:
    """Whether a version of Python such as ``3.11.7`` is one that a valid ``specifier`` allows."""
    return SpecifierSet(specifier).contains(version, prereleases=True)


def python_fault(requires_python: str) -> str | None:
    """What to tell if this Python is not one that ``requires_python`` allows; None: it is."""
    version = ".".join(map(str, sys.version_info[:3]))
    if satisfies(version, requires_python):
        return None
    return (
        f"python.requires_python is {requires_python!r}, but the package would run on Python {version}: use a runtime "
        "with such a Python, or change requires-python in pyproject.toml and pack again"
    )
