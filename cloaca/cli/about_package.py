"""What ``describe`` tells about a CloacinaPackage. Pure: everything it says was handed in."""

from __future__ import annotations

from collections.abc import Sequence

from cloaca.cli.page import Page
from cloaca.cli.recent import recent_runs
from cloaca.cli.tables import age, first_line
from cloaca.resources import CloacinaPackage, Trigger, WorkflowRun
from cloaca.resources.conditions import PackageCondition, find
from cloaca.resources.package import CandidatePackage


def describe_package(
    page: Page, package: CloacinaPackage, triggers: Sequence[Trigger], runs: Sequence[WorkflowRun], waiting: str
) -> None:
    """Write it to ``page``. ``waiting``: why nobody works on it; empty: somebody does."""
    spec, status = package.spec, package.status
    page.head(package)
    page.field("Status", package_summary(package))
    page.field("Daemon", waiting)
    page.field(
        "Source", spec.source.url or (f"ConfigMap {spec.source.config_map.name}" if spec.source.config_map else "")
    )
    page.field("Pinned", spec.digest)
    page.field("Pulled every", spec.interval)
    page.moment("Created", package.metadata.creation_timestamp)
    if status.active is not None:
        page.field("Active", f"{status.active.version}, {status.active.digest}, since {page.ago(status.active.since)}")
    page.field("Candidate", _candidate(status.candidate, page))
    page.conditions(status.conditions)
    page.table(
        "Workflows",
        ("Name", "Tasks", "Description"),
        [(entry.name, ", ".join(entry.tasks), entry.description) for entry in status.workflows],
    )
    page.table(
        "Triggers",
        ("Function", "Workflow", "Interval", "Object", "Suspended", "Last fire", "Errors"),
        [_trigger_row(page, entry.name, entry.workflow, entry.poll_interval, triggers) for entry in status.triggers],
        empty="none" if status.active else "",
    )
    for warning in status.warnings:
        page.field("Warning", warning)
    page.table(
        "History",
        ("Age", "Version", "Digest", "Outcome", "Why"),
        [
            (
                age(entry.time, page.now),
                entry.version or "",
                (entry.digest or "")[:19],
                "accepted" if entry.accepted else "refused",
                entry.message,
            )
            for entry in status.history
        ],
    )
    recent_runs(page, runs)


def package_summary(package: CloacinaPackage) -> str:
    """Whether it works, and if not why, in a line."""
    ready = find(package.status.conditions, PackageCondition.READY)
    if ready is None:
        return "Unknown: nobody has looked at it yet"
    if ready.status.value == "True":
        polling = find(package.status.conditions, PackageCondition.POLLING)
        more = f"; not polled, {polling.reason}" if polling is not None and polling.status.value != "True" else ""
        return f"Ready{more}"
    return f"not ready, {ready.reason}{': ' if ready.message else ''}{first_line(ready.message)}"


def _candidate(candidate: CandidatePackage | None, page: Page) -> str:
    if candidate is None:
        return ""
    version, digest = candidate.version or "unknown version", candidate.digest or "no digest"
    return f"{version}, {digest}, since {page.ago(candidate.since)}"


def _trigger_row(
    page: Page, name: str, workflow: str, interval: str, triggers: Sequence[Trigger]
) -> tuple[str, str, str, str, str, str, str]:
    obj = next((trigger for trigger in triggers if trigger.spec.name == name), None)
    if obj is None:
        return name, workflow, interval, "none", "", "", ""
    effective = obj.status.effective
    return (
        name,
        effective.workflow if effective else workflow,
        effective.poll_interval if effective else interval,
        obj.name,
        "yes" if obj.spec.suspend else "no",
        page.ago(obj.status.last_fire_time) or "never",
        str(obj.status.consecutive_errors),
    )
