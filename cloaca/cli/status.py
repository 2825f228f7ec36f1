"""The commands ``status`` and ``version``: the state of things at a glance. Changes nothing."""

from __future__ import annotations

import platform
from collections import Counter
from functools import partial
from typing import Any

from cloaca import __version__
from cloaca.cli.session import ScopeOption, Session, command, commands
from cloaca.cli.terminal import BAD, GOOD, block, paint, print_answer

app = commands()


@command(app, "version", anywhere=False)
def version(session: Session) -> None:  # noqa: ARG001  # every command gets it
    """Show the version.

    \b
    Example:
      cloaca version
    """
    print_answer(f"cloaca {__version__} (Python {platform.python_version()}, {platform.system()} {platform.machine()})")


@command(app, "status")
def status(session: Session, namespace: ScopeOption = None) -> None:
    """Say whether a daemon runs, what there is, and what is not ready and why.

    \b
    Example:
      cloaca status
      cloaca status --home ./home
      cloaca status --kube-context production -n team-a
    """
    from cloaca.cli.place import Laptop
    from cloaca.cli.running import daemon_process
    from cloaca.store.of_home import store_url
    from cloaca.store.sql.url import without_password

    place, scope = session.place, session.look_around(namespace)
    if isinstance(place, Laptop):
        if not place.has_store and daemon_process(place.home) is None:
            print_answer(
                f"Daemon:     {paint('not running', BAD)}: start `cloaca daemon`", f"Home:       {place.home.root}"
            )
            print_answer("Store:      empty: nothing was ever deployed here")
            return
        working = session.with_store(place.daemon)
        running = paint("not running", BAD) if working.absence else paint(f"running, {working.where}", GOOD)
        own = place.url == store_url(place.home, None)
        advice = "start `cloaca daemon`" if own else working.absence
        print_answer(f"Daemon:     {running}{f': {advice}' if working.absence else ''}")
        print_answer(f"Home:       {place.home.root}")
        if not own:
            print_answer(f"Store:      {without_password(place.url)}")
    else:
        print_answer(f"Cluster:    {place.name}", f"Namespace:  {scope}")
    print_answer(*session.with_store(partial(_overview, scope)))


async def _overview(namespace: str | None, store: Any) -> list[str]:
    """How many there are of each kind, and what is not as it should be."""
    from cloaca.cli.about_package import package_summary
    from cloaca.cli.about_run import run_summary
    from cloaca.cli.kinds import full_name
    from cloaca.cli.recent import newest_first
    from cloaca.cli.tables import first_line
    from cloaca.resources import CloacinaPackage, RunPhase, Trigger, WorkflowRun
    from cloaca.resources.conditions import TriggerCondition, find, is_true

    packages, triggers = await store.list(CloacinaPackage, namespace), await store.list(Trigger, namespace)
    runs = newest_first(await store.list(WorkflowRun, namespace))
    wrong: list[tuple[str, str]] = [
        (full_name(package.ref), package_summary(package))
        for package in packages
        if not is_true(package.status.conditions, "Ready")
    ]
    for trigger in triggers:
        ready = find(trigger.status.conditions, TriggerCondition.READY)
        if ready is None or ready.status.value != "True":
            why = f"{ready.reason}: {first_line(ready.message)}" if ready else "nobody has looked at it yet"
            wrong.append((full_name(trigger.ref), f"not ready, {why}"))
        elif trigger.status.consecutive_errors:
            said = first_line(trigger.status.last_error or "")
            wrong.append((full_name(trigger.ref), f"{trigger.status.consecutive_errors} errors in a row: {said}"))
    failed = [run for run in runs if run.status.phase is RunPhase.FAILED][:5]
    wrong += [(full_name(run.ref), run_summary(run)) for run in failed]
    phases = Counter(run.status.phase.value for run in runs)
    suspended = sum(trigger.spec.suspend for trigger in triggers)
    lines = [
        f"Packages:   {len(packages)}",
        f"Triggers:   {len(triggers)}{f', {suspended} suspended' if suspended else ''}",
        f"Runs:       {len(runs)}{_listed(phases)}",
    ]
    if not wrong:
        return [*lines, f"Wrong:      {paint('nothing', GOOD)}"]
    return [*lines, paint("Wrong:", BAD), *block(f"{name}: {why}" for name, why in wrong)]


def _listed(phases: Counter[str]) -> str:
    return f": {', '.join(f'{count} {phase}' for phase, count in sorted(phases.items()))}" if phases else ""
