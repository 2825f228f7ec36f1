"""What each role of the chart allows, and what was asked for: a verb that no test uses is one too many.

Every test on a cluster notes both in a folder that all processes of a test run share. At the end they are compared, but
only if all of those tests ran: a part of them needs a part of the rights only.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cluster.control_plane import Asked

FOLDER = "CLOACINA_TEST_RIGHTS"
"""The environment variable that tells test processes the folder."""
_PATH = re.compile(r"/(?:api|apis/(?P<group>[^/]+))/v[0-9a-z]+/")


class Right(NamedTuple):
    """One verb on one kind of thing."""

    group: str
    resource: str  # with its subresource: workflowruns/status
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


_ELSEWHERE = "; tested with other rights"
UNUSED_ON_PURPOSE: Mapping[Right, str] = {
    **{
        Right(
            "cloacina.io", f"{kind}/finalizers", "update"
        ): "an admission plugin asks for it, where a cluster has it on"
        for kind in ("cloacinapackages", "triggers", "workflowruns")
    },
    Right("cloacina.io", "workflowruns", "create"): f"fires of schedules{_ELSEWHERE}",
    Right("cloacina.io", "workflowruns", "delete"): f"history limits (Reconciler._collect){_ELSEWHERE}",
    Right(
        "cloacina.io", "workflowruns", "patch"
    ): f"spec.cancel of a run that is replaced (Reconciler._cancel){_ELSEWHERE}",
    Right("cloacina.io", "triggerledgers", "create"): f"keys of runs that are collected (Ledgers.enter){_ELSEWHERE}",
    Right("cloacina.io", "triggerledgers", "patch"): f"the same, in a segment that has room{_ELSEWHERE}",
    Right("cloacina.io", "triggerledgers", "delete"): f"the oldest segment (Ledgers._drop_oldest){_ELSEWHERE}",
    Right("", "configmaps", "delete"): f"archives that nothing needs any more{_ELSEWHERE}",
}
"""Rights that no audit log of these tests shows, and what asks for them."""


def granted(documents: Iterable[Mapping[str, Any]], prefix: str) -> dict[str, set[Right]]:
    """Role → what it allows, of the rendered chart; for people there are roles that are not looked at."""
    found = {}
    for document in documents:
        name = document["metadata"]["name"].removeprefix(f"{prefix}-")
        if document["kind"] in ("Role", "ClusterRole") and name not in ("view", "edit", "operator-secrets"):
            found[name] = {
                Right(group, resource, verb)
                for rule in document["rules"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return found


def used(requests: Iterable[Asked]) -> set[Right]:
    """What was asked for, and allowed."""
    return {
        Right(match["group"] or "", request.resource, request.verb)
        for request in requests
        if request.code != 403 and (match := _PATH.match(request.path)) is not None
    }


def note(test_file: Path, allowed: Mapping[str, set[Right]], asked: Mapping[str, set[Right]]) -> None:
    """Add what one test shows, by role."""
    if FOLDER in os.environ:
        what = {
            "file": test_file.name,
            "granted": {role: sorted(rights) for role, rights in allowed.items()},
            "used": {role: sorted(rights) for role, rights in asked.items()},
        }
        (Path(os.environ[FOLDER]) / f"{uuid.uuid4().hex}.json").write_text(json.dumps(what))


def unused(notes: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each right that a role has and nobody of it used."""
    allowed: dict[str, set[Right]] = {}
    asked: dict[str, set[Right]] = {}
    for one in notes:
        for total, part in ((allowed, one["granted"]), (asked, one["used"])):
            for role, rights in part.items():
                total.setdefault(role, set()).update(Right(*right) for right in rights)
    return [
        f"{role}: {right}"
        for role, rights in sorted(allowed.items())
        for right in sorted(rights - set(UNUSED_ON_PURPOSE))
        if right not in asked.get(role, set()) and not _implied(right, rights)
    ]


def _implied(right: Right, rights: set[Right]) -> bool:
    """Who may list things learns nothing more from getting one."""
    return right.verb == "get" and right._replace(verb="list") in rights


def judged(folder: Path, *, part: bool) -> list[str]:
    """What is granted and not used, by the notes of ``folder``; nothing if they are of a ``part`` of the tests."""
    notes = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    if part or not files_that_note() <= {one["file"] for one in notes}:
        return []
    return unused(notes)


def files_that_note() -> set[str]:
    """The test files with a cluster of the fixture: all of them have to run before anything is judged."""
    here = Path(__file__).parent
    return {path.name for path in here.glob("test_*.py") if re.search(r"\bcluster: Cluster\b", path.read_text())}
