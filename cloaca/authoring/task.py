"""Tasks: ``@task`` validates a function and puts it into the workflow that is being built."""

from __future__ import annotations

from cloaca.authoring.naming import checked_name
from cloaca.authoring.parameters import parameters_of
from cloaca.authoring.registry import active_registry
from cloaca.authoring.retry import RetryPolicy, policy_from_arguments
from cloaca.authoring.value import Value
from cloaca.errors import DefinitionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])
    Dependency = str | Callable[..., Any]  # a task's id, or the function that @task decorated

_HANDLE_NAMES = ("handle", "task_handle")


class TaskDefinition(Value):
    """One task: what to call, after which others, and what to do when it fails."""

    id: str
    function: Callable[..., Any]
    dependencies: tuple[str, ...] = ()
    retry: RetryPolicy = RetryPolicy()
    timeout_seconds: float | None = None  # None: the runner's own limit holds
    on_success: Callable[..., Any] | None = None
    on_failure: Callable[..., Any] | None = None
    takes_handle: bool = False
    is_async: bool = False


def define_task(
    function: Callable[..., Any],
    *,
    id: str | None,
    dependencies: Sequence[Dependency] | None,
    retry: RetryPolicy,
    timeout_seconds: float | None,
    on_success: Callable[..., Any] | None,
    on_failure: Callable[..., Any] | None,
) -> TaskDefinition:
    """The definition of ``function`` as a task. Raises DefinitionError for anything that could never run."""
    if not callable(function):
        raise DefinitionError(f"@task decorates a function, not {type(function).__qualname__} {function!r}")
    task_id = checked_name(getattr(function, "__name__", None) if id is None else id, "a task's id")
    takes = parameters_of(function)
    takes_handle = len(takes.positional) > 1 and takes.positional[1] in _HANDLE_NAMES
    if not takes.positional and not takes.any_number and not takes.wrapped:
        raise DefinitionError(f"task {task_id!r}: the function takes no argument, but is called with the context")
    if not takes.wrapped and (len(takes.required) > 1 + takes_handle or takes.required_keywords):
        raise DefinitionError(
            f"task {task_id!r}: the function needs {', '.join(takes.required + takes.required_keywords)}; a task takes "
            "the context and, if it wants, a second parameter named 'handle'"
        )
    for name, callback in (("on_success", on_success), ("on_failure", on_failure)):
        if callback is not None and not callable(callback):
            raise DefinitionError(f"task {task_id!r}: {name} is {callback!r}, which cannot be called")
    if timeout_seconds is not None and not (isinstance(timeout_seconds, (int, float)) and timeout_seconds > 0):
        raise DefinitionError(f"task {task_id!r}: timeout_seconds is {timeout_seconds!r}, but must be above 0")
    if takes.is_generator:
        raise DefinitionError(f"task {task_id!r}: the function is a generator; a task returns its context or None")
    return TaskDefinition(
        id=task_id,
        function=function,
        dependencies=_dependency_ids(task_id, dependencies or ()),
        retry=retry,
        timeout_seconds=timeout_seconds,
        on_success=on_success,
        on_failure=on_failure,
        takes_handle=takes_handle,
        is_async=takes.is_async,
    )


def _dependency_ids(task_id: str, dependencies: Sequence[Dependency]) -> tuple[str, ...]:
    """In the order given, without repeats."""
    if isinstance(dependencies, str):
        raise DefinitionError(f"task {task_id!r}: dependencies is a list: write dependencies=[{dependencies!r}]")
    return tuple(dict.fromkeys(_dependency_id(task_id, item) for item in dependencies))


def _dependency_id(task_id: str, dependency: Dependency) -> str:
    if isinstance(dependency, str):
        return dependency
    decorated = definition_of(dependency)
    if decorated is None:
        raise DefinitionError(
            f"task {task_id!r}: the dependency {dependency!r} must be either a task id or a function that has @task"
        )
    return decorated.id


_ATTRIBUTE = "__cloaca_task__"


def definition_of(function: object) -> TaskDefinition | None:
    """The task that ``function`` was decorated as, or None."""
    definition = getattr(function, _ATTRIBUTE, None)
    return definition if isinstance(definition, TaskDefinition) else None


def task(
    id: str | None = None,
    dependencies: Sequence[Dependency] | None = None,
    retry_attempts: int | None = None,
    retry_backoff: str | None = None,
    retry_delay_ms: int | None = None,
    retry_max_delay_ms: int | None = None,
    retry_condition: str | None = None,
    retry_jitter: bool | None = None,
    on_success: Callable[..., Any] | None = None,
    on_failure: Callable[..., Any] | None = None,
    timeout_seconds: float | None = None,
) -> Callable[[F], F]:
    """Make a function a task of the workflow whose ``with WorkflowBuilder(…)`` block it stands in.

    The function stays an ordinary callable. ``id`` defaults to its name; ``dependencies`` takes ids and task functions
    mixed; the ``retry_*`` arguments change the default policy (up to 3 retries); delays are milliseconds.
    Raises DefinitionError (a ValueError) outside such a block and for anything that could never run. In a package,
    tasks outside of every block form a workflow that has the package's name.

    >>> import cloaca
    >>> with cloaca.WorkflowBuilder("load") as builder:
    ...     @cloaca.task(retry_attempts=1)
    ...     def extract(context):
    ...         context.set("rows", 3)
    ...     @cloaca.task(dependencies=[extract])
    ...     def load(context):
    ...         return context
    >>> builder.build().topological_sort()
    ['extract', 'load']
    """
    if callable(id) and not isinstance(id, str):
        raise DefinitionError("write @task() with parentheses: @task alone would take the function for its id")
    policy = policy_from_arguments(
        attempts=retry_attempts,
        backoff=retry_backoff,
        delay_ms=retry_delay_ms,
        max_delay_ms=retry_max_delay_ms,
        condition=retry_condition,
        jitter=retry_jitter,
    )

    def decorate(function: F) -> F:
        from cloaca.authoring.workflow import current_builder  # tasks know nothing of workflows until they join one

        definition = define_task(
            function,
            id=id,
            dependencies=dependencies,
            retry=policy,
            timeout_seconds=timeout_seconds,
            on_success=on_success,
            on_failure=on_failure,
        )
        builder = current_builder()
        if builder is not None:
            builder.define(definition)
        elif not active_registry().add_loose_task(definition):
            raise DefinitionError(
                f"@task(id={definition.id!r}) stands outside of a workflow: put it inside "
                "`with cloaca.WorkflowBuilder(name) as builder:`"
            )
        try:
            setattr(function, _ATTRIBUTE, definition)
        except AttributeError:  # a bound method or a builtin: other tasks depend on it by its id
            return function
        return function

    return decorate
