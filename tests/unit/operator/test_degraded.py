"""How a trigger whose function fails is told, and that it has recovered."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from cloacina_operator.core.triggers import ObservedTrigger, plan

from cloaca.resources import ObjectMeta, Trigger, TriggerSpec
from cloaca.resources.conditions import find
from cloaca.resources.trigger import PackageReference

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)
FRAMES = [f'  File "inbox.py", line {line}, in f{line}' for line in range(9)]
ERROR = "\n".join(["OSError: no such folder", "Traceback (most recent call last):", *FRAMES, "OSError: no such folder"])


def look(trigger: Trigger, minutes: int, *, errors: int, error: str | None) -> Trigger:
    """The trigger after one more look of the operator, its poller having recorded so many errors in a row."""
    polled = trigger.status.model_copy(update={"consecutive_errors": errors, "last_error": error})
    seen = trigger.model_copy(update={"status": polled})
    decided = plan(ObservedTrigger(trigger=seen, package=None, now=NOW + timedelta(minutes=minutes)))
    return seen.model_copy(update={"status": decided.status})


def test_three_errors_degrade_with_the_error_first_then_the_tail_of_its_traceback_and_the_recovery_is_noted_once() -> (
    None
):
    spec = TriggerSpec(package_ref=PackageReference(name="p"), name="watch")
    trigger = Trigger(metadata=ObjectMeta(name="p-watch", uid="u"), spec=spec)
    told = []
    for minutes, errors in enumerate((0, 1, 2, 3, 4, 0, 0, 2, 3, 0)):
        trigger = look(trigger, minutes, errors=errors, error=ERROR if errors else None)
        degraded = find(trigger.status.conditions, "Degraded")
        assert degraded is not None
        since = int((degraded.last_transition_time - NOW).total_seconds()) // 60
        told.append((degraded.status.value, degraded.reason, since, degraded.message.splitlines()))
    head = "the last polls failed, most recently with: OSError: no such folder"
    last = [head, "…", *FRAMES[-5:], "OSError: no such folder"]
    again = ["polls end well again, after: OSError: no such folder"]
    assert told == [
        *[("False", "Healthy", 0, [])] * 3,
        *[("True", "ErrorsInARow", 3, last)] * 2,
        *[("False", "Recovered", 5, again)] * 3,
        ("True", "ErrorsInARow", 8, last),
        ("False", "Recovered", 9, again),
    ]
