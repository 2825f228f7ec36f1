"""What ``describe`` tells about a WorkflowRun. Pure: everything it says was handed in."""

from __future__ import annotations

from pathlib import Path

from cloaca.cli.follow import time_taken
from cloaca.cli.page import Page
from cloaca.cli.tables import first_line, took
from cloaca.resources import TaskStatus, WorkflowRun
from cloaca.resources.conditions import RunCondition, find


def describe_run(page: Page, run: WorkflowRun, log: Path | None, waiting: str) -> None:
    """Write it to ``page``. ``log``: where its output is; ``waiting``: why nobody starts it."""
    spec, status = run.spec, run.status
    page.head(run)
    page.field("Status", run_summary(run))
    page.field("Daemon", "" if status.phase.finished else waiting)
    page.field("Package", spec.package_ref.name if spec.package_ref else "none: a program's own workflow")
    page.field("Workflow", spec.workflow)
    page.field("Digest", spec.digest)
    page.field("Trigger", spec.trigger_ref.name if spec.trigger_ref else "none: submitted by hand")
    page.field("Key", spec.key)
    page.field("Replay of", spec.replay_of)
    page.field("Cancel", "yes" if spec.cancel else "")
    page.field("Attempt", str(status.attempt) if status.attempt else "")
    page.field("Died", f"{status.failures} of at most {spec.backoff_limit + 1} times" if status.failures else "")
    page.field("Process", status.pod_name)
    page.moment("Created", run.metadata.creation_timestamp)
    page.moment("Started", status.started_at)
    page.moment("Finished", status.finished_at)
    page.field("Log", f"{log} (`cloaca logs {run.name}`)" if log else "")
    page.table(
        "Tasks",
        ("Id", "Phase", "Attempts", "Took", "Message"),
        [(task.id, task.phase.value, str(task.attempts), _took(task), task.message or "") for task in status.tasks],
        empty="none yet",
    )
    page.text("Message", status.message if status.message and "\n" in status.message else "")
    page.text("Traceback", status.traceback)
    page.conditions(status.conditions, "none")
    page.json("Context", spec.context)
    page.json("Result", status.context)


def run_summary(run: WorkflowRun) -> str:
    """Where it is, and why, in a line."""
    status = run.status
    time = time_taken(run)
    why = status.message or ""
    if not status.phase.finished:
        started = find(status.conditions, RunCondition.STARTED)
        why = why or (started.message or started.reason if started and started.status.value == "False" else "")
        running = [task.id for task in status.tasks if task.phase.value == "Running"]
        why = why or (f"task {', '.join(running)}" if running else "")
    return f"{status.phase.value}{f' after {time}' if time else ''}{f': {first_line(why)}' if why else ''}"


def _took(task: TaskStatus) -> str:
    if task.started_at is None or task.finished_at is None:
        return ""
    return took((task.finished_at - task.started_at).total_seconds())
