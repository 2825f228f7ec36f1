"""What the decorators register: workflows, tasks, triggers. A package is collected into a registry of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cloaca.errors import DefinitionError

if TYPE_CHECKING:
    from cloaca.authoring.task import TaskDefinition
    from cloaca.authoring.trigger import TriggerDefinition
    from cloaca.authoring.workflow import Workflow


class Registry:
    """Names to definitions. Registering a workflow again replaces it."""

    def __init__(self, *, strict: bool = False) -> None:
        self.workflows: dict[str, Workflow] = {}
        self.tasks: dict[str, TaskDefinition] = {}
        self.triggers: dict[str, TriggerDefinition] = {}
        self._strict = strict  # True: two triggers of one name are an error, as in a package
        self._lock = threading.Lock()

    def add_workflow(self, workflow: Workflow) -> None:
        """Register ``workflow`` and its tasks under their names."""
        with self._lock:
            self.workflows[workflow.name] = workflow
            self.tasks.update(workflow.tasks)

    def add_trigger(self, trigger: TriggerDefinition) -> None:
        """Register ``trigger``. Raises DefinitionError for a second one of that name in a package."""
        with self._lock:
            if self._strict and trigger.name in self.triggers:
                raise DefinitionError(f"two triggers have the name {trigger.name!r}: rename one of them")
            self.triggers[trigger.name] = trigger


_registries: list[Registry] = [Registry()]


def active_registry() -> Registry:
    """The registry that decorators register into now."""
    return _registries[-1]


@contextmanager
def collecting() -> Iterator[Registry]:
    """Within the block every decorator, in any thread, registers into the fresh registry that it yields."""
    registry = Registry(strict=True)
    _registries.append(registry)
    try:
        yield registry
    finally:
        _registries.remove(registry)
