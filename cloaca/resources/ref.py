"""What is said of every object alike: which one is meant, by which version of the API, and how times are written."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final, NamedTuple

GROUP: Final = "cloacina.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "cloacina.io/v1alpha1"
DEFAULT_NAMESPACE = "default"


class Ref(NamedTuple):
    """Which object: enough to look it up, nothing of what it says."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def rfc3339(moment: datetime) -> str:
    """``moment`` in UTC as Kubernetes writes micro-times: ``2026-03-28T09:00:00.000000Z``."""
    if moment.tzinfo is not timezone.utc:
        moment = moment.astimezone(timezone.utc)
    time = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ" % time  # noqa: UP031  # a third faster than all other ways


def moment_of(text: str) -> datetime:
    """The moment that ``text`` names, in any form of RFC 3339. Raises ValueError for anything else."""
    whole, point, rest = text.partition(".")
    if point:
        zone = rest.lstrip("0123456789")
        text = f"{whole}.{rest[: len(rest) - len(zone)][:6]:0<6}{zone}"
    moment = datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in ("Z", "z") else text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment
