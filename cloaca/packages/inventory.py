"""Say what a package's decorators registered, in a form that crosses a process boundary. Pure, and light to import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from cloaca.authoring.registry import Registry
from cloaca.authoring.task import TaskDefinition
from cloaca.authoring.trigger import TriggerDefinition
from cloaca.errors import LoadError
from cloaca.failure import failure_of, plain_text

_LONGEST_DESCRIPTION = 10_000  # characters


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where something stands in the code."""

    file: str
    """Relative to the package's root."""
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class TaskItem:
    """One task, as its decorator registered it."""

    id: str
    function: str
    """``module:callable``."""
    dependencies: tuple[str, ...] = ()
    description: str = ""
    retries: int = 0
    timeout_seconds: float | None = None  # None: no limit of its own
    place: Place | None = None  # None: the function has no source


@dataclass(frozen=True, kw_only=True)
class WorkflowItem:
    """One workflow, as its builder registered it."""

    name: str
    tasks: tuple[TaskItem, ...]
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class TriggerItem:
    """One trigger, as its decorator registered it."""

    name: str
    function: str
    """``module:callable``."""
    poll_interval: str
    allow_concurrent: bool = False
    workflow: str | None = None  # None: the manifest says which
    place: Place | None = None  # None: the function has no source


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Everything that a package registered, in the order in which it did."""

    workflows: tuple[WorkflowItem, ...] = ()
    triggers: tuple[TriggerItem, ...] = ()

    def task_ids_by_workflow(self) -> dict[str, tuple[str, ...]]:
        """Name of each workflow and the ids of its tasks."""
        return {workflow.name: tuple(task.id for task in workflow.tasks) for workflow in self.workflows}

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``; ``from_json`` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Inventory:
        """What ``to_json`` gave, before or after a way through JSON text."""
        return cls(
            workflows=tuple(
                WorkflowItem(**{**workflow, "tasks": tuple(_task(task) for task in workflow["tasks"])})
                for workflow in data["workflows"]
            ),
            triggers=tuple(TriggerItem(**{**item, "place": _place(item["place"])}) for item in data["triggers"]),
        )


def inventory_of(registry: Registry) -> Inventory:
    """What ``registry`` holds. Raises LoadError where a callable object refuses to be looked at."""
    try:
        return _inventory_of(registry)
    except BaseException as error:
        failure = failure_of(error)
        message = f"what the package registers cannot be listed: {failure.message}"
        raise LoadError(message, failure.traceback or "") from error


def _inventory_of(registry: Registry) -> Inventory:
    return Inventory(
        workflows=tuple(
            WorkflowItem(
                name=workflow.name,
                description=plain_text(workflow.description, _LONGEST_DESCRIPTION),
                tasks=tuple(_task_item(task) for task in workflow.tasks.values()),
            )
            for workflow in registry.workflows.values()
        ),
        triggers=tuple(_trigger_item(trigger) for trigger in registry.triggers.values()),
    )


def _task(data: Mapping[str, Any]) -> TaskItem:
    return TaskItem(**{**data, "dependencies": tuple(data["dependencies"]), "place": _place(data["place"])})


def _place(data: Mapping[str, Any] | None) -> Place | None:
    return None if data is None else Place(**data)


def _task_item(task: TaskDefinition) -> TaskItem:
    return TaskItem(
        id=task.id,
        function=_path(task.function),
        dependencies=tuple(task.dependencies),
        description=_first_line(task.function),
        retries=task.retry.max_attempts,
        timeout_seconds=task.timeout_seconds,
        place=_place_of(task.function),
    )


def _trigger_item(trigger: TriggerDefinition) -> TriggerItem:
    return TriggerItem(
        name=trigger.name,
        function=_path(trigger.function),
        poll_interval=trigger.poll_interval,
        allow_concurrent=trigger.allow_concurrent,
        workflow=trigger.workflow,
        place=_place_of(trigger.function),
    )


def _path(function: Callable[..., Any]) -> str:
    """``module:callable``; for an object that is called, or a ``functools.partial``, what its class is named."""
    inner = getattr(function, "func", function)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', None) or type(inner).__module__}:{name}"


def _first_line(function: Callable[..., Any]) -> str:
    if not hasattr(function, "__code__"):
        return ""  # the docstring of an object is its class's
    line = next(iter((function.__doc__ or "").strip().splitlines()), "").strip()
    return plain_text(line, _LONGEST_DESCRIPTION)


def _place_of(function: Callable[..., Any]) -> Place | None:
    inner = getattr(function, "func", function)
    for _ in range(50):  # decorators of other libraries leave the original one layer below
        if not hasattr(inner, "__wrapped__"):
            break
        inner = inner.__wrapped__
    called = inner if hasattr(inner, "__code__") else type(inner).__dict__.get("__call__")
    code = getattr(called, "__code__", None)
    if code is None:
        return None
    path = PurePath(code.co_filename)
    module = getattr(inner, "__module__", None) or type(inner).__module__
    depth = module.count(".") + (2 if path.stem == "__init__" else 1)  # data_ingest → data_ingest/__init__.py
    return Place(file=PurePath(*path.parts[-depth:]).as_posix(), line=code.co_firstlineno)
