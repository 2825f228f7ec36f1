"""Judge a storm from what its package wrote down and what the store says. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloaca.resources import RunPhase, WorkflowRun

Line = Mapping[str, Any]
"""``what`` (call, fire, after, start, end), ``process``, ``time``, and what belongs to it; see the package's code."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the fires."""

    fires: int
    runs: int
    resumed: int  # runs in which a task was started more than once
    forgotten: int  # fires that died with the process that made them, of functions that do not say them again
    broken: tuple[str, ...]


def judge(
    lines: Sequence[Line],
    runs: Iterable[WorkflowRun],
    *,
    tasks: Sequence[str],
    alone: Collection[str],
    forgetful: Collection[str],
) -> Verdict:
    """``lines`` in the order in which they were written; ``runs``: those that the store has, when all is done.

    ``alone``: triggers of which no two runs may overlap. ``forgetful``: triggers whose function says a fire once, so
    that it may die with its process; all others say it until it has a run, and none of theirs may be lost.
    """
    broken: list[str] = []
    starts = _by_run(lines, "start")
    ends = _by_run(lines, "end")
    runs_of: dict[str, set[str]] = defaultdict(set)
    for run, started in starts.items():
        for line in started:
            runs_of[line["fire"]].add(run)
    for run in runs:
        runs_of[run.spec.context["fire"]].add(run.name)
        broken += _of_the_store(run, starts.get(run.name, ()))
    said: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["what"] == "fire":
            said[line["fire"]].append(line)
    last_call = {(line["process"], line["trigger"]): n for n, line in enumerate(lines) if line["what"] == "call"}
    numbers = {id(line): n for n, line in enumerate(lines)}
    forgotten = 0
    for fire, saying in said.items():
        made = runs_of.get(fire, set())
        if len(made) > 1:
            broken.append(f"fire {fire} gave {len(made)} runs: {', '.join(sorted(made))}")
        if made:
            continue
        last = saying[-1]
        died = last_call[last["process"], last["trigger"]] < numbers[id(last)]
        if died and last["trigger"] in forgetful:
            forgotten += 1
        else:
            broken.append(f"fire {fire} was lost")
    for run, started in starts.items():
        broken += _of_the_run(run, started, ends.get(run, ()), said, tasks, numbers)
    broken += [
        f"the code after the yield of {line['fire']} ran, and the fire has no run"
        for line in lines
        if line["what"] == "after" and not runs_of.get(line["fire"])
    ]
    broken += _overlaps(lines, tasks, alone)
    resumed = sum(len(started) > len({line["task"] for line in started}) for started in starts.values())
    return Verdict(fires=len(said), runs=len(starts), resumed=resumed, forgotten=forgotten, broken=tuple(broken))


def _by_run(lines: Sequence[Line], what: str) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["what"] == what:
            found[line["run"]].append(line)
    return found


def _of_the_store(run: WorkflowRun, started: Sequence[Line]) -> list[str]:
    broken = []
    if run.status.phase is not RunPhase.COMPLETED and run.status.phase is not RunPhase.DEDUPLICATED:
        broken.append(f"run {run.name} is {run.status.phase.value}: {run.status.message}")
    if run.status.finished_at is not None:
        finished = run.status.finished_at.timestamp()
        late = [line["task"] for line in started if line["time"] > finished]
        broken += [f"run {run.name}: task {task} started after the run had ended" for task in late]
    return broken


def _of_the_run(
    run: str,
    started: Sequence[Line],
    ended: Sequence[Line],
    said: Mapping[str, Sequence[Line]],
    tasks: Sequence[str],
    numbers: Mapping[int, int],
) -> list[str]:
    """A task that starts proves that what it builds on is recorded as finished: that never starts again."""
    broken = []
    furthest = 0
    for line in started:
        position = tasks.index(line["task"])
        if position < furthest:
            broken.append(f"run {run}: task {line['task']} started again after {tasks[furthest]} had started")
        furthest = max(furthest, position)
        given = [saying["payload"] for saying in said[line["fire"]] if numbers[id(saying)] < numbers[id(line)]]
        if line["payload"] not in given:
            broken.append(f"run {run}: task {line['task']} got another context than was fired")
    if {line["task"] for line in ended} != set(tasks):
        missing = [task for task in tasks if task not in {line["task"] for line in ended}]
        broken.append(f"run {run} never came to the end of {', '.join(missing)}")
    return broken


def _overlaps(lines: Sequence[Line], tasks: Sequence[str], alone: Collection[str]) -> list[str]:
    broken = []
    under_way: dict[str, str] = {}  # trigger -> its run that has begun and not come to its end
    for line in lines:
        if line["what"] not in ("start", "end") or line["trigger"] not in alone:
            continue
        trigger, run = line["trigger"], line["run"]
        other = under_way.setdefault(trigger, run)
        if other != run:
            broken.append(f"runs {other} and {run} overlap")
        if line["what"] == "end" and line["task"] == tasks[-1]:
            under_way.pop(trigger, None)
    return broken
