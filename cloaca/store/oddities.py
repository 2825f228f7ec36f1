"""Remember which objects could not be read or handled, and which namespaces could not be followed. Reads nothing.

The one place that decides what is logged about them: each fault of an object once, until the object changes or is
well again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cloaca.errors import Conflict, StoreUnavailable, Unreadable
from cloaca.resources.ref import API_VERSION, Ref

log = logging.getLogger("cloacina.objects")

REMEMBERED = 10_000
"""Faults that are remembered; the oldest are forgotten first, and logged again if they are met again."""


class Stage(str, Enum):
    """At which step an object could not be dealt with."""

    READ = "read"
    WATCH = "watch"
    DECIDE = "decide"


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """An object that could not be read or handled, and why."""

    ref: Ref
    uid: str  # empty: it is not known
    message: str
    stage: Stage = Stage.READ
    api_version: str = API_VERSION


class Oddities:
    """The objects that are left out, and why. Belongs to one event loop."""

    def __init__(self) -> None:
        self._known: dict[tuple[Ref, Stage], Oddity] = {}
        self._set_aside: dict[str, str] = {}  # path of a collection -> why
        self.told: Callable[[Oddity], None] | None = None
        """Called with each new fault of an object."""

    def note(self, oddity: Oddity, error: BaseException | None = None) -> None:
        """Log and tell ``oddity``, unless the same fault of the same object is known.

        ``error`` is logged with its traceback: for faults that nobody expected.
        """
        key = (oddity.ref, oddity.stage)
        before = self._known.pop(key, None)
        self._known[key] = oddity
        if before == oddity:
            return
        log.warning("%s is left out: %s", oddity.ref, oddity.message, exc_info=error)
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        if self.told is not None:
            self.told(oddity)

    def well(self, ref: Ref, stage: Stage) -> None:
        """The object passed this step."""
        self._known.pop((ref, stage), None)

    def gone(self, ref: Ref) -> None:
        """The object was deleted."""
        for stage in Stage:
            self._known.pop((ref, stage), None)

    def __bool__(self) -> bool:
        """Whether any object is left out."""
        return bool(self._known)

    def unreadable(self, ref: Ref) -> bool:
        """Whether the object is there, and could not be read when it was last met."""
        return (ref, Stage.READ) in self._known

    @contextmanager
    def guard(self, ref: Ref, stage: Stage, uid: str = "", api_version: str = API_VERSION) -> Iterator[None]:
        """Whatever the body raises about the object is noted and goes no further."""
        try:
            yield
        except (Conflict, StoreUnavailable):
            raise  # of the store, not of the object
        except Unreadable as error:
            self.note(Oddity(ref=ref, uid=uid, message=str(error), api_version=api_version))
        except Exception as error:  # noqa: BLE001  # no object may end the work on others
            said = f"{type(error).__name__}: {error}"
            self.note(Oddity(ref=ref, uid=uid, message=said, stage=stage, api_version=api_version), error)
        else:
            self.well(ref, stage)

    def set_aside(self, path: str, why: str) -> None:
        """The collection at ``path`` cannot be followed for now."""
        if path not in self._set_aside:
            log.warning("%s is set aside, and tried again now and then: %s", path, why)
        self._set_aside[path] = why

    def followed(self, path: str) -> None:
        """The collection at ``path`` is followed (again)."""
        if self._set_aside.pop(path, None) is not None:
            log.info("%s is followed again", path)

    def count_by_kind(self) -> Mapping[str, int]:
        """How many objects of each kind are left out."""
        return Counter(ref.kind for ref in {ref for ref, _ in self._known})

    def namespaces_set_aside(self) -> frozenset[str]:
        """The namespaces of which some collection cannot be followed; empty string: all namespaces at once."""
        return frozenset(namespace_of(path) for path in self._set_aside)


def namespace_of(path: str) -> str:
    """The namespace in the path of a collection; empty: it is that of all namespaces.

    >>> namespace_of("/apis/batch/v1/namespaces/team/jobs")
    'team'
    """
    parts = path.split("/")
    return parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-2] else ""


def uid_in(obj: Mapping[str, Any]) -> str:
    """The uid of a Kubernetes object; empty: it has none."""
    return str(obj.get("metadata", {}).get("uid", ""))
