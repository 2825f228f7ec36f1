"""Cloacina: workflows and the triggers that fire them, written in Python.

Importing this package is cheap: what needs a database is loaded when it is first used. Modules that set
``TYPE_CHECKING = False`` instead of importing it keep the whole of ``typing`` out of the programs that we run in.
"""

from __future__ import annotations

from cloaca.authoring.context import Context
from cloaca.authoring.retry import BackoffStrategy, RetryCondition, RetryPolicy
from cloaca.authoring.task import task
from cloaca.authoring.trigger import TriggerResult, trigger
from cloaca.authoring.variables import var, var_or
from cloaca.authoring.workflow import (
    TaskNamespace,
    Workflow,
    WorkflowBuilder,
    WorkflowContext,
    register_workflow_constructor,
)
from cloaca.errors import CloacaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloaca.engine.config import DefaultRunnerConfig
    from cloaca.engine.handle import TaskHandle
    from cloaca.library.result import WorkflowResult
    from cloaca.library.runner import DefaultRunner
    from cloaca.library.tenants import DatabaseAdmin, TenantConfig, TenantCredentials

__version__ = "0.1.0"

_LAZY = {
    "DefaultRunner": "cloaca.library.runner",
    "DefaultRunnerConfig": "cloaca.engine.config",
    "WorkflowResult": "cloaca.library.result",
    "DatabaseAdmin": "cloaca.library.tenants",
    "TenantConfig": "cloaca.library.tenants",
    "TenantCredentials": "cloaca.library.tenants",
    "TaskHandle": "cloaca.engine.handle",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'cloaca' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def hello_world() -> str:
    """For smoke tests.

    >>> hello_world()
    'Hello from Cloaca backend!'
    """
    return "Hello from Cloaca backend!"


class HelloClass:
    """For smoke tests.

    >>> HelloClass().get_message()
    'Hello from HelloClass!'
    """

    def __init__(self) -> None:
        self.message = "Hello from HelloClass!"

    def get_message(self) -> str:
        """A greeting.

        >>> HelloClass().get_message()
        'Hello from HelloClass!'
        """
        return self.message

    def __repr__(self) -> str:
        return f"HelloClass(message={self.message!r})"


__all__ = [
    "BackoffStrategy",
    "CloacaError",
    "Context",
    "DatabaseAdmin",
    "DefaultRunner",
    "DefaultRunnerConfig",
    "HelloClass",
    "RetryCondition",
    "RetryPolicy",
    "TaskHandle",
    "TaskNamespace",
    "TenantConfig",
    "TenantCredentials",
    "TriggerResult",
    "Workflow",
    "WorkflowBuilder",
    "WorkflowContext",
    "WorkflowResult",
    "hello_world",
    "register_workflow_constructor",
    "task",
    "trigger",
    "var",
    "var_or",
]
