"""Compare the names in the code with those in the manifest. Pure.

Twice: by reading the code (``static`` finds the names), before anything of it runs, where only what is certain counts;
and by what the decorators registered when it was imported, where everything must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloaca.packages.inventory import Inventory, Place, TaskItem
from cloaca.packages.load import MANIFEST_NAME
from cloaca.packages.manifest import Manifest, TriggerEntry
from cloaca.packages.nearest import did_you_mean, nearest
from cloaca.packages.static import StaticNames
from cloaca.resources.names import object_name


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One difference for which a package is refused."""

    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything in which manifest and code differ. A warning refuses nothing: the manifest wins."""

    disagreements: tuple[Disagreement, ...] = ()
    warnings: tuple[str, ...] = ()


def resolve_workflow(name: str, package: str, workflows: Mapping[str, Sequence[str]]) -> str | None:
    """Which of ``workflows`` (name → ids of its tasks) a trigger means: a workflow, the package, or a task's.

    ``-`` and ``_`` are the same. None: none of them, or it cannot be told which.
    """
    for workflow in workflows:
        if workflow == name:
            return workflow
    for workflow in workflows:
        if _plain(workflow) == _plain(name):
            return workflow
    if _plain(name) == _plain(package) and len(workflows) == 1:
        return next(iter(workflows))
    holding = [workflow for workflow, tasks in workflows.items() if name in tasks]
    return holding[0] if len(holding) == 1 else None


def check_static(manifest: Manifest, names: StaticNames) -> tuple[Disagreement, ...]:
    """What is certainly wrong by reading alone: declared and nowhere in the code, or in the entry module for sure and
    not declared. What the code decides while it runs is left to the import."""
    found: list[Disagreement] = []
    for what, declared, code in (
        ("trigger", [entry.name for entry in manifest.triggers], names.triggers),
        ("task", [entry.id for entry in manifest.tasks], names.tasks),
    ):
        places = {name: item.place for name, item in code.items()}
        missing = [] if names.dynamic else [name for name in declared if name not in places]
        surplus = [name for name, item in code.items() if item.certain and name not in declared]
        found += _differences(what, missing, surplus, places)
    return tuple(found)


def check_registered(manifest: Manifest, inventory: Inventory) -> Report:
    """Compare with what the decorators registered, both ways, exactly and case-sensitively."""
    triggers = {item.name: item for item in inventory.triggers}
    tasks = {task.id: task for workflow in inventory.workflows for task in workflow.tasks}
    declared_triggers = [entry.name for entry in manifest.triggers]
    declared_tasks = {entry.id: entry for entry in manifest.tasks}
    found = [
        *_both_ways("trigger", declared_triggers, {name: item.place for name, item in triggers.items()}),
        *_both_ways("task", declared_tasks, {name: item.place for name, item in tasks.items()}),
        *repeated_names(inventory),
    ]
    for task_id, entry in declared_tasks.items():
        task = tasks.get(task_id)
        if task is not None and set(task.dependencies) != set(entry.dependencies):
            found.append(_dependencies_differ(task, entry.dependencies))
    warnings = list(manifest.warnings)
    workflows = inventory.task_ids_by_workflow()
    for declared in manifest.triggers:
        workflow = resolve_workflow(declared.workflow, manifest.name, workflows)
        if workflow is None:
            found.append(_workflow_unknown(declared, workflows))
        item = triggers.get(declared.name)
        if item is not None:
            meant = None if item.workflow is None else resolve_workflow(item.workflow, manifest.name, workflows)
            warnings += _settings_differ(
                declared.name,
                (
                    ("poll_interval", declared.poll_interval, item.poll_interval),
                    ("allow_concurrent", declared.allow_concurrent, item.allow_concurrent),
                    ("workflow", workflow, workflow if meant is None else meant),
                ),
            )
    return Report(disagreements=tuple(found), warnings=tuple(warnings))


def _both_ways(what: str, declared: Iterable[str], code: Mapping[str, Place | None]) -> list[Disagreement]:
    names = list(declared)
    missing = [name for name in names if name not in code]
    surplus = [name for name in code if name not in names]
    return _differences(what, missing, surplus, code)


def _differences(
    what: str, missing: Sequence[str], surplus: Sequence[str], code: Mapping[str, Place | None]
) -> list[Disagreement]:
    """Pairs that look like one misspelt name are told as one."""
    left = list(surplus)
    found = []
    for name in missing:
        match = nearest(name, left)
        if match is not None:
            left.remove(match)
            said = f"manifest declares {what} `{name}`; the code has `{match}`{_at(code[match])}: did you mean that?"
        else:
            known = ", ".join(f"`{other}`" for other in code) or "none"
            said = f"manifest declares {what} `{name}`, but the code has no such {what}; it has: {known}"
        found.append(Disagreement(message=said))
    for name in left:
        section = f"{what}s"
        said = f"the code has {what} `{name}`{_at(code[name])}, but {MANIFEST_NAME} does not declare it: "
        found.append(Disagreement(message=f"{said}add it to {section}, or remove it from the code"))
    return found


def repeated_names(inventory: Inventory) -> list[Disagreement]:
    """Task ids that stand in two workflows, and workflows whose names become one object name."""
    return [*_repeated_tasks(inventory), *_colliding_workflows(inventory)]


def _colliding_workflows(inventory: Inventory) -> list[Disagreement]:
    """Triggers, labels and runs name a workflow, and ``-`` and ``_`` are the same there."""
    first: dict[str, str] = {}
    found = []
    for workflow in inventory.workflows:
        name = object_name(workflow.name)
        known = first.setdefault(name, workflow.name)
        if known != workflow.name:
            said = f"workflows `{known}` and `{workflow.name}` would both be named {name!r} in the names of their runs"
            found.append(Disagreement(message=f"{said}: rename one of the two"))
    return found


def _repeated_tasks(inventory: Inventory) -> list[Disagreement]:
    """The manifest has one list of tasks for all workflows, so an id can belong to one of them only."""
    owner: dict[str, str] = {}
    found = []
    for workflow in inventory.workflows:
        for task in workflow.tasks:
            first = owner.setdefault(task.id, workflow.name)
            if first != workflow.name:
                said = f"task `{task.id}`{_at(task.place)} stands in workflow `{first}` and in `{workflow.name}`"
                found.append(Disagreement(message=f"{said}: ids are unique in a package; rename one"))
    return found


def _dependencies_differ(task: TaskItem, declared: Sequence[str]) -> Disagreement:
    stated, real = (", ".join(f"`{name}`" for name in names) or "none" for names in (declared, task.dependencies))
    return Disagreement(
        message=f"task `{task.id}`{_at(task.place)}: manifest declares the dependencies {stated}; the code has {real}"
    )


def _workflow_unknown(declared: TriggerEntry, workflows: Mapping[str, Sequence[str]]) -> Disagreement:
    known = ", ".join(f"`{name}`" for name in workflows) or "none"
    hint = did_you_mean(declared.workflow, workflows)
    return Disagreement(
        message=f"trigger `{declared.name}` fires workflow `{declared.workflow}` (InvalidTriggerWorkflow), "
        f"but the code has: {known}{hint}"
    )


def _settings_differ(name: str, settings: Iterable[tuple[str, object, object]]) -> list[str]:
    return [
        f"trigger `{name}`: {setting} is {stated!r} in the manifest and {real!r} in the code; the manifest wins"
        for setting, stated, real in settings
        if stated != real
    ]


def _at(place: Place | None) -> str:
    return "" if place is None else f" ({place})"


def _plain(name: str) -> str:
    return name.replace("-", "_")
