"""Runs that a dead runner left: which of them are resumed, and which are closed with a word. Decides, then claims."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from cloaca.authoring.workflow import Workflow
from cloaca.engine.config import DefaultRunnerConfig
from cloaca.errors import Conflict, NotFound
from cloaca.library.presence import Presence
from cloaca.resources.phases import RunPhase
from cloaca.resources.run import WorkflowRun
from cloaca.resources.schedules import SCHEDULE_LABEL
from cloaca.store import Store

log = logging.getLogger("cloaca.library")

Resume = Callable[[Workflow, WorkflowRun], None]


def claimed(run: WorkflowRun, runner: str, config: DefaultRunnerConfig, now: datetime) -> WorkflowRun:
    """``run`` as ``runner`` takes it over: the next attempt, or closed where its processes died too often.

    Writing it, on condition that nobody else has written, is what makes it this runner's: the one that had it before
    is refused from then on.
    """
    by_cron = SCHEDULE_LABEL in run.metadata.labels
    failures = run.status.failures + 1
    changes: dict[str, Any] = {"attempt": run.status.attempt + 1, "failures": failures, "pod_name": runner}
    age = now - (run.metadata.creation_timestamp or now)
    most = config.cron_max_recovery_attempts if by_cron else run.spec.backoff_limit
    refusal = None
    if failures > most:
        refusal = f"its process died {failures} times: find out what ends it, then execute the workflow again"
    elif by_cron and not config.cron_enable_recovery:
        refusal = "its process died, and cron_enable_recovery is off"
    elif by_cron and age > timedelta(seconds=config.cron_max_recovery_age_seconds):
        refusal = f"its process died, and it is older than the {config.cron_max_recovery_age_seconds} s of recovery"
    if refusal is not None:
        changes |= {"phase": RunPhase.FAILED, "finished_at": now, "message": refusal}
    taken: WorkflowRun = run.with_status(**changes)
    return taken


async def recover(
    store: Store,
    presence: Presence,
    config: DefaultRunnerConfig,
    workflows: Mapping[str, Workflow],
    resume: Resume,
    may_resume: Callable[[WorkflowRun], Awaitable[bool]],
    still_wanted: Callable[[], bool],
    told: set[str],
    *,
    cron_too: bool,
) -> None:
    """Take over the runs of dead runners; those whose workflow this program has not stay for one that has it.

    ``may_resume``: whether a run is for this runner to take, beyond that. ``told``: names of the runs that the log said
    before to wait for such a program; more are added. ``cron_too``: runs of cron schedules as well, whose turn
    comes at an interval of their own.
    """
    dead = await presence.dead()
    if not dead:
        return
    left = set()  # runners that still have a run which is not ours to take
    oldest_first = sorted(await store.unfinished_runs(), key=lambda run: str(run.metadata.creation_timestamp))
    for run in oldest_first:
        if run.status.pod_name not in dead or run.spec.package_ref is not None:
            continue
        workflow = workflows.get(run.spec.workflow)
        if workflow is None and run.name not in told:
            told.add(run.name)
            log.warning(
                "run %s of a dead process waits for a program that has its workflow %r: define it in one whose "
                "DefaultRunner opens this database, or delete the run",
                run.name,
                run.spec.workflow,
            )
        if workflow is None or (SCHEDULE_LABEL in run.metadata.labels and not cron_too):
            left.add(run.status.pod_name)
            continue
        if not still_wanted():
            return
        if not await may_resume(run):
            left.add(run.status.pod_name)
            continue
        try:
            taken = await store.write_status(claimed(run, presence.name, config, datetime.now(timezone.utc)))
        except (Conflict, NotFound):  # another runner was faster, or the old one lives
            continue
        if taken.status.phase.finished:
            log.warning("run %s is given up: %s", taken.name, taken.status.message)
        else:
            log.info("run %s of a dead process is resumed as attempt %d", taken.name, taken.status.attempt)
            resume(workflow, taken)
    for name in dead:
        if name not in left:
            await presence.forget(name)
