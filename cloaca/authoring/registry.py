"""What the decorators register: workflows, tasks, triggers. A package is collected into a registry of its own."""

from __future__ import annotations

from cloaca.errors import DefinitionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloaca.authoring.task import TaskDefinition
    from cloaca.authoring.trigger import TriggerDefinition
    from cloaca.authoring.workflow import Workflow


class Registry:
    """Names to definitions, for all threads. Registering a workflow again replaces it."""

    def __init__(self, *, strict: bool = False) -> None:
        self.workflows: dict[str, Workflow] = {}
        self.tasks: dict[str, TaskDefinition] = {}
        self.triggers: dict[str, TriggerDefinition] = {}
        self.listeners: list[Callable[[], None]] = []  # told of each trigger that joins
        self.loose: dict[str, TaskDefinition] | None = None  # tasks outside of every workflow; None: they are an error
        self._strict = strict  # True: two triggers of one name are an error, as in a package

    def add_workflow(self, workflow: Workflow) -> None:
        """Register ``workflow`` and its tasks under their names."""
        self.tasks.update(workflow.tasks)
        self.workflows[workflow.name] = workflow

    def add_loose_task(self, task: TaskDefinition) -> bool:
        """Keep a task that stands outside of every workflow; False if such tasks are an error here.

        Raises DefinitionError for a second one of that id.
        """
        if self.loose is None:
            return False
        present = self.loose.setdefault(task.id, task)
        if present.function is not task.function:
            raise DefinitionError(f"two tasks outside of a workflow have the id {task.id!r}: rename one of them")
        self.tasks[task.id] = task
        return True

    def add_trigger(self, trigger: TriggerDefinition) -> None:
        """Register ``trigger``. Raises DefinitionError for a second one of that name in a package."""
        if self._strict and self.triggers.setdefault(trigger.name, trigger) is not trigger:
            raise DefinitionError(f"two triggers have the name {trigger.name!r}: rename one of them")
        self.triggers[trigger.name] = trigger
        for listener in list(self.listeners):
            listener()


_registries: list[Registry] = [Registry()]


def active_registry() -> Registry:
    """The registry that decorators register into now."""
    return _registries[-1]


class collecting:  # noqa: N801  # read as `with collecting() as registry:`
    """Within the block every decorator, in any thread, registers into the fresh registry that it yields."""

    def __enter__(self) -> Registry:
        self._registry = Registry(strict=True)
        _registries.append(self._registry)
        return self._registry

    def __exit__(self, *_: object) -> None:
        _registries.remove(self._registry)
