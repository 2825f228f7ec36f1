"""What ``describe`` tells about a Trigger. Pure: everything it says was handed in."""

from __future__ import annotations

from collections.abc import Sequence

from cloaca.cli.page import Page
from cloaca.cli.recent import recent_runs
from cloaca.cli.tables import age, first_line, took
from cloaca.resources import Trigger, WorkflowRun
from cloaca.resources.conditions import TriggerCondition, find


def describe_trigger(page: Page, trigger: Trigger, runs: Sequence[WorkflowRun], waiting: str) -> None:
    """Write it to ``page``. ``waiting``: why nobody polls it; empty: somebody does."""
    spec, status = trigger.spec, trigger.status
    page.head(trigger)
    page.field("Status", trigger_summary(page, trigger))
    page.field("Daemon", waiting)
    page.field("Package", spec.package_ref.name)
    page.field("Function", spec.name)
    if status.effective is not None:
        effective = status.effective
        page.field("Workflow", effective.workflow)
        page.field("Interval", effective.poll_interval)
        page.field("Policy", effective.concurrency_policy.value)
        page.field("Timeout", effective.timeout)
        page.field("Digest", effective.digest)
        page.json("Config", effective.config)
    page.field("Schedule", f"{spec.schedule} ({spec.time_zone or 'UTC'})" if spec.schedule else "")
    page.field("Suspended", "yes" if spec.suspend else "no")
    page.moment("Created", trigger.metadata.creation_timestamp)
    page.moment("Last poll", status.last_poll_time)
    if status.next_poll_time is not None and status.next_poll_time > page.now:
        page.moment("Next poll", status.next_poll_time)
    elif status.next_poll_time is not None and not waiting and not spec.suspend:
        page.field("Next poll", "in time; polls that fire nothing are recorded once a minute")
    page.moment("Last fire", status.last_fire_time)
    page.field("Last run", status.last_run)
    more = status.active_count - len(status.active)
    page.field("Active runs", ", ".join(status.active) + (f" and {more} more" if more > 0 else ""))
    page.field("Errors", f"{status.consecutive_errors} in a row" if status.consecutive_errors else "")
    page.field("Last error", status.last_error)
    if status.pending is not None:
        names = ", ".join(fire.name for fire in status.pending.fires)
        page.field("Pending", f"tick {status.pending.tick}: {names}")
    page.json("State", status.state)
    page.conditions(status.conditions)
    page.table(
        "Ticks",
        ("Age", "Outcome", "Took", "Runs", "Reason"),
        [
            (age(t.time, page.now), t.outcome.value, took(t.duration_ms / 1000), ", ".join(t.runs), t.reason)
            for t in status.ticks
        ],
        empty="none yet (polls that only skip are shown within a minute)",
    )
    recent_runs(page, runs)


def trigger_summary(page: Page, trigger: Trigger) -> str:
    """Whether it is polled and what it does, and if not why, in a line."""
    status = trigger.status
    ready, polling = (find(status.conditions, t) for t in (TriggerCondition.READY, TriggerCondition.POLLING))
    if trigger.spec.suspend:
        return f"suspended: `cloaca resume trigger {trigger.name}` polls it again"
    if ready is None:
        return "Unknown: nobody has looked at it yet"
    if ready.status.value != "True":
        return f"not polled, {ready.reason}{': ' if ready.message else ''}{first_line(ready.message)}"
    if polling is not None and polling.status.value != "True":
        return f"not polled now, {polling.reason}{': ' if polling.message else ''}{first_line(polling.message)}"
    last = status.ticks[0] if status.ticks else None
    told = f"; last poll {page.ago(last.time)}: {last.outcome.value}" if last else ""
    why = f" ({first_line(last.reason)})" if last and last.reason else ""
    every = f"polled every {status.effective.poll_interval}" if status.effective else "polled"
    return f"{'fires by the clock' if trigger.spec.schedule else every}{told}{why}"
