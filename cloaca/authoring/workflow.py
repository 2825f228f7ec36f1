"""Workflows: a builder collects tasks, a workflow is their validated graph."""

from __future__ import annotations

from contextvars import ContextVar
from types import CodeType, MappingProxyType

from cloaca.authoring import graph
from cloaca.authoring.naming import checked_name
from cloaca.authoring.registry import active_registry
from cloaca.authoring.task import TaskDefinition, definition_of
from cloaca.authoring.value import Value
from cloaca.errors import DefinitionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any


class TaskNamespace(Value):
    """Where a task belongs: tenant, package, workflow, task.

    >>> str(TaskNamespace(workflow_id="ingest", task_id="load"))
    'public::embedded::ingest::load'
    """

    tenant_id: str = "public"
    package_name: str = "embedded"
    workflow_id: str = ""
    task_id: str = ""

    def __str__(self) -> str:
        return f"{self.tenant_id}::{self.package_name}::{self.workflow_id}::{self.task_id}"


class WorkflowContext(Value):
    """Tenant, package and workflow that a builder builds for.

    >>> WorkflowBuilder("ingest", tenant="acme").context.as_components()
    ('acme', 'embedded', 'ingest')
    """

    tenant_id: str
    package_name: str
    workflow_id: str

    def as_components(self) -> tuple[str, str, str]:
        """(tenant, package, workflow).

        >>> WorkflowContext("acme", "sales", "ingest").as_components()
        ('acme', 'sales', 'ingest')
        """
        return (self.tenant_id, self.package_name, self.workflow_id)


class Workflow(Value):
    """A validated graph of tasks under a name; ``WorkflowBuilder.build()`` makes one.

    >>> import cloaca
    >>> with cloaca.WorkflowBuilder("greet") as builder:
    ...     hello = cloaca.task(id="hello")(lambda context: None)
    >>> builder.build().get_execution_levels()
    [['hello']]
    """

    name: str
    tasks: Mapping[str, TaskDefinition]
    description: str = ""
    tags: Mapping[str, str] = MappingProxyType({})

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # it is registered and passed around, never compared

    @property
    def version(self) -> str:
        """Hash of the content: equal for equal definitions, another one when tasks or description differ.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("etl") as builder:
        ...     extract = cloaca.task(id="extract")(lambda context: None)
        ...     load = cloaca.task(id="load", dependencies=[extract])(lambda context: None)
        >>> builder.build().version == builder.build().version
        True
        >>> builder.description("Something else")
        >>> len(builder.build().version)
        16
        """
        import hashlib  # costs every program that imports cloaca some milliseconds, and few ask for a version

        digest = hashlib.sha256()
        for part in _content(self):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()[:16]

    @property
    def dependencies(self) -> dict[str, tuple[str, ...]]:
        """Task id -> ids that it waits for.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("etl") as builder:
        ...     extract = cloaca.task(id="extract")(lambda context: None)
        ...     load = cloaca.task(id="load", dependencies=[extract])(lambda context: None)
        >>> builder.build().dependencies
        {'extract': (), 'load': ('extract',)}
        """
        return {task.id: task.dependencies for task in self.tasks.values()}

    def topological_sort(self) -> list[str]:
        """Every task id after all that it depends on.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("etl") as builder:
        ...     extract = cloaca.task(id="extract")(lambda context: None)
        ...     load = cloaca.task(id="load", dependencies=[extract])(lambda context: None)
        >>> builder.build().topological_sort()
        ['extract', 'load']
        """
        return graph.topological_order(self.dependencies)

    def get_execution_levels(self) -> list[list[str]]:
        """Task ids by level; all of one level may run in parallel.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("etl") as builder:
        ...     extract = cloaca.task(id="extract")(lambda context: None)
        ...     load = cloaca.task(id="load", dependencies=[extract])(lambda context: None)
        >>> builder.build().get_execution_levels()
        [['extract'], ['load']]
        """
        return graph.levels(self.dependencies)

    def get_roots(self) -> list[str]:
        """Ids of the tasks that wait for nothing.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("etl") as builder:
        ...     extract = cloaca.task(id="extract")(lambda context: None)
        ...     load = cloaca.task(id="load", dependencies=[extract])(lambda context: None)
        >>> builder.build().get_roots()
        ['extract']
        """
        return graph.roots(self.dependencies)

    def get_leaves(self) -> list[str]:
        """Ids of the tasks that nothing waits for.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("etl") as builder:
        ...     extract = cloaca.task(id="extract")(lambda context: None)
        ...     load = cloaca.task(id="load", dependencies=[extract])(lambda context: None)
        >>> builder.build().get_leaves()
        ['load']
        """
        return graph.leaves(self.dependencies)

    def validate(self) -> None:
        """Raise DefinitionError (a ValueError) for no tasks, unknown dependencies or a cycle.

        >>> Workflow("etl", {}).validate()
        Traceback (most recent call last):
        cloaca.errors.DefinitionError: workflow 'etl' cannot be empty: add at least one task
        """
        if not self.tasks:
            raise DefinitionError(f"workflow {self.name!r} cannot be empty: add at least one task")
        dependencies = self.dependencies
        unknown = graph.unknown_dependencies(dependencies)
        if unknown:
            faults = "; ".join(f"task {task!r} depends on unknown task {needed!r}" for task, needed in unknown)
            raise DefinitionError(f"workflow {self.name!r}: {faults}")
        cycle = graph.find_cycle(dependencies)
        if cycle is not None:
            raise DefinitionError(f"workflow {self.name!r} has a cycle: {graph.describe_cycle(cycle)}")

    def __repr__(self) -> str:
        return f"Workflow(name={self.name!r}, tasks={list(self.tasks)!r})"


class WorkflowBuilder:
    """Collects tasks; as a context manager it registers the workflow when the block ends well.

    >>> import cloaca
    >>> with cloaca.WorkflowBuilder("greet") as builder:
    ...     builder.description("Says hello")
    ...     @cloaca.task(id="hello")
    ...     def hello(context):
    ...         context.set("said", "hello")
    """

    def __init__(
        self, name: str, *, tenant: str | None = None, package: str | None = None, workflow: str | None = None
    ) -> None:
        self.name = checked_name(name, "a workflow's name")
        for part, value in (("tenant", tenant), ("package", package), ("workflow", workflow)):
            if value is not None:
                checked_name(value, f"WorkflowBuilder: {part}")
        self.context = WorkflowContext(tenant or "public", package or "embedded", workflow or name)
        self._description = ""
        self._tags: dict[str, str] = {}
        self._tasks: dict[str, TaskDefinition] = {}

    def description(self, text: str) -> None:
        """Say what the workflow is for. Raises DefinitionError for what is no text.

        >>> builder = WorkflowBuilder("etl")
        >>> builder.description("Loads what has come in")
        """
        if not isinstance(text, str):
            raise DefinitionError(f"workflow {self.name!r}: its description is a text, not {text!r}")
        self._description = text

    def tag(self, key: str, value: str) -> None:
        """Attach a word to the workflow. Raises DefinitionError for what is no text.

        >>> WorkflowBuilder("etl").tag("team", "data")
        """
        if not isinstance(key, str) or not key.strip() or not isinstance(value, str):
            raise DefinitionError(
                f"workflow {self.name!r}: a tag is a key and a value, both texts, not {key!r}: {value!r}"
            )
        self._tags[key] = value

    def define(self, definition: TaskDefinition) -> None:
        """Take a task that was just decorated. Raises DefinitionError if another one has its id.

        >>> from cloaca.authoring.task import TaskDefinition
        >>> builder = WorkflowBuilder("etl")
        >>> builder.define(TaskDefinition("load", print))
        >>> builder.build().topological_sort()
        ['load']
        """
        present = self._tasks.get(definition.id)
        if present is not None and present.function is not definition.function:
            raise DefinitionError(
                f"workflow {self.name!r} has two tasks with the id {definition.id!r}: give one another id"
            )
        self._tasks[definition.id] = definition

    def add_task(self, task: str | Callable[..., Any]) -> None:
        """Add a task that exists already, by id or by its function. Added twice, it is one task.

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("first"):
        ...     clean = cloaca.task(id="clean")(lambda context: None)
        >>> builder = WorkflowBuilder("second")
        >>> builder.add_task("clean")
        >>> builder.add_task("cleam")
        Traceback (most recent call last):
        cloaca.errors.DefinitionError: Task 'cleam' not found in registry: define it with @task first
        """
        if isinstance(task, str):
            definition = self._tasks.get(task) or active_registry().tasks.get(task)
            if definition is None:
                raise DefinitionError(f"Task {task!r} not found in registry: define it with @task first")
        else:
            found = definition_of(task)
            if found is None:
                raise DefinitionError(f"{task!r} must be either a string task ID or a function object that has @task")
            definition = found
        self.define(definition)

    def build(self) -> Workflow:
        """The workflow, validated; it is not registered. Raises DefinitionError (a ValueError).

        >>> import cloaca
        >>> with cloaca.WorkflowBuilder("etl") as builder:
        ...     extract = cloaca.task(id="extract")(lambda context: None)
        ...     load = cloaca.task(id="load", dependencies=[extract])(lambda context: None)
        >>> builder.build()
        Workflow(name='etl', tasks=['extract', 'load'])
        """
        workflow = Workflow(
            name=self.name,
            tasks=MappingProxyType(dict(self._tasks)),
            description=self._description,
            tags=MappingProxyType(dict(self._tags)),
        )
        workflow.validate()
        return workflow

    def __enter__(self) -> WorkflowBuilder:
        _builders.set((*_builders.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _builders.set(tuple(builder for builder in _builders.get() if builder is not self))
        if kind is None:  # a block that raised registers nothing
            active_registry().add_workflow(self.build())


_builders: ContextVar[tuple[WorkflowBuilder, ...]] = ContextVar("cloaca_builders", default=())
"""The open ``with`` blocks, innermost last; a context variable, since two threads may each define a workflow."""


def current_builder() -> WorkflowBuilder | None:
    """The builder of the innermost ``with`` block of this thread, or None outside of any."""
    builders = _builders.get()
    return builders[-1] if builders else None


def register_workflow_constructor(name: str, constructor: Callable[[], Workflow]) -> None:
    """Register what ``constructor`` returns under ``name``; a workflow registered before is replaced.

    >>> import cloaca
    >>> def greet():
    ...     builder = cloaca.WorkflowBuilder("greet")
    ...     builder.add_task("hello")
    ...     return builder.build()
    >>> with cloaca.WorkflowBuilder("first"):
    ...     hello = cloaca.task(id="hello")(lambda context: None)
    >>> register_workflow_constructor("greet", greet)
    """
    checked_name(name, "a workflow's name")
    if not callable(constructor):
        raise DefinitionError(
            f"workflow {name!r}: its constructor is a function that returns a Workflow, not {constructor!r}"
        )
    workflow = constructor()
    if not isinstance(workflow, Workflow):
        raise DefinitionError(
            f"the constructor of workflow {name!r} returned {type(workflow).__qualname__}, not a Workflow"
        )
    active_registry().add_workflow(
        workflow
        if workflow.name == name
        else Workflow(name=name, tasks=workflow.tasks, description=workflow.description, tags=workflow.tags)
    )


def _content(workflow: Workflow) -> Iterable[str]:
    yield workflow.name
    yield workflow.description
    yield from (f"{key}={value}" for key, value in sorted(workflow.tags.items()))
    for task_id in sorted(workflow.tasks):
        definition = workflow.tasks[task_id]
        yield task_id
        yield repr(definition.dependencies)
        yield repr(definition.retry)
        yield repr(definition.timeout_seconds)
        yield getattr(definition.function, "__qualname__", type(definition.function).__qualname__)
        yield _code(getattr(definition.function, "__code__", None))


def _code(code: CodeType | None) -> str:
    """What a function does, without what differs between equal definitions (addresses, files, lines)."""
    if code is None:
        return ""
    return f"{code.co_code.hex()} {code.co_names} {_constant(code.co_consts)}"


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, frozenset):  # its order differs from process to process
        return str(sorted(_constant(item) for item in value))
    if isinstance(value, tuple):
        return str([_constant(item) for item in value])
    return repr(value)
