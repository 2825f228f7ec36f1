"""Say what an archive holds once manifest and code agree. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cloaca.errors import AgreementError
from cloaca.packages.agreement import check_registered, resolve_workflow
from cloaca.packages.host import host_warnings
from cloaca.packages.inventory import Inventory
from cloaca.packages.manifest import Manifest
from cloaca.resources.meta import Schema
from cloaca.resources.package import TaskEntry, TriggerEntry, WorkflowEntry


class Accepted(Schema):
    """What an archive holds, agreed between manifest and code."""

    version: str
    name: str | None = None
    """Of the package, as the manifest has it; unset: not known."""
    workflows: tuple[WorkflowEntry, ...] = ()
    tasks: tuple[TaskEntry, ...] = ()
    triggers: tuple[TriggerEntry, ...] = ()
    warnings: tuple[str, ...] = ()


def accept(manifest: Manifest, inventory: Inventory, files: Iterable[str]) -> Accepted:
    """Workflows and tasks as registered, triggers as declared. ``files``: paths of the archive's files.

    Raises AgreementError with every disagreement.
    """
    report = check_registered(manifest, inventory)
    if report.disagreements:
        raise AgreementError("\n".join(str(disagreement) for disagreement in report.disagreements))
    workflows = tuple(
        WorkflowEntry(name=item.name, description=item.description, tasks=tuple(task.id for task in item.tasks))
        for item in inventory.workflows
    )
    return accepted(manifest, workflows, (*host_warnings(files), *(str(warning) for warning in report.warnings)))


def files_of(root: Path) -> list[str]:
    """The paths of the files of an unpacked archive."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def accepted(manifest: Manifest, workflows: tuple[WorkflowEntry, ...], warnings: Iterable[str]) -> Accepted:
    """Of a package whose workflows are known: everything else stands in its manifest."""
    dependencies = {task.id: task.dependencies for task in manifest.tasks}
    names = {workflow.name: workflow.tasks for workflow in workflows}
    return Accepted(
        version=manifest.version,
        name=manifest.name,
        workflows=workflows,
        tasks=tuple(
            TaskEntry(id=task, dependencies=dependencies.get(task, ()))
            for workflow in workflows
            for task in workflow.tasks
        ),
        triggers=tuple(
            TriggerEntry(
                name=entry.name,
                workflow=resolve_workflow(entry.workflow, manifest.name, names) or entry.workflow,
                poll_interval=entry.poll_interval,
                allow_concurrent=entry.allow_concurrent,
                config=entry.config or {},
            )
            for entry in manifest.triggers
        ),
        warnings=tuple(warnings),
    )
