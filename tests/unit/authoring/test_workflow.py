"""WorkflowBuilder and Workflow: what joins, what is registered, what is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

import cloaca
from cloaca.authoring.registry import Registry
from cloaca.errors import DefinitionError


def step(context: Any) -> Any: ...


def workflow(name: str = "w", description: str = "", **needs: list[str]) -> cloaca.Workflow:
    with cloaca.WorkflowBuilder(name) as builder:
        builder.description(description)
        for task, dependencies in (needs or {"only": []}).items():
            cloaca.task(id=task, dependencies=dependencies)(step)
    return builder.build()


DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def test_tasks_inside_the_block_join_the_workflow_which_is_registered_on_leaving(registry: Registry) -> None:
    with cloaca.WorkflowBuilder("daily") as builder:
        builder.description("Every day")
        builder.tag("team", "data")

        @cloaca.task()
        def extract(context: Any) -> Any: ...

        assert registry.workflows == {}

    registered = registry.workflows["daily"]
    assert (registered.name, registered.description, dict(registered.tags)) == ("daily", "Every day", {"team": "data"})
    assert list(registered.tasks) == ["extract"]
    assert list(registry.tasks) == ["extract"]


def test_registering_a_name_again_replaces_it(registry: Registry) -> None:
    workflow(first=[])
    workflow(second=[])

    assert list(registry.workflows["w"].tasks) == ["second"]


def test_a_block_that_raised_registers_nothing(registry: Registry) -> None:
    def broken_module() -> None:
        with cloaca.WorkflowBuilder("w"):
            cloaca.task()(step)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_module()

    assert (registry.workflows, registry.tasks) == ({}, {})
    with pytest.raises(DefinitionError, match="stands outside of a workflow"):
        cloaca.task()(step)


def test_a_builder_without_a_block_builds_from_tasks_that_exist(registry: Registry) -> None:
    workflow("source", **DIAMOND)
    builder = cloaca.WorkflowBuilder("other")
    builder.add_task("a")
    builder.add_task("b")
    built = builder.build()

    assert built.dependencies == {"a": (), "b": ("a",)}
    assert list(registry.workflows) == ["source"]


def test_a_task_added_twice_by_id_and_by_function_is_one_task() -> None:
    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task()
        def only(context: Any) -> Any: ...

        builder.add_task("only")
        builder.add_task(only)

    assert list(builder.build().tasks) == ["only"]


def test_two_tasks_of_one_id_are_refused() -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="a")(step)
        with pytest.raises(DefinitionError, match="workflow 'w' has two tasks with the id 'a'"):
            cloaca.task(id="a")(lambda context: None)


def test_an_unknown_id_is_a_value_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="Task 'nope' not found in registry"):
        cloaca.WorkflowBuilder("w").add_task("nope")


@pytest.mark.parametrize("added", [7, None, lambda context: None], ids=["number", "None", "undecorated function"])
def test_what_is_no_task_cannot_be_added(added: Any) -> None:
    with pytest.raises(ValueError, match="must be either a string task ID or a function object"):
        cloaca.WorkflowBuilder("w").add_task(added)


def test_a_workflow_without_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="workflow 'w' cannot be empty: add at least one task"):
        cloaca.WorkflowBuilder("w").build()
    with pytest.raises(ValueError, match="cannot be empty"), cloaca.WorkflowBuilder("w"):
        pass


@pytest.mark.parametrize("name", ["", "  ", None, 7], ids=repr)
def test_a_workflow_needs_a_name(name: Any) -> None:
    with pytest.raises(ValueError, match="a workflow's name is a text that is not empty"):
        cloaca.WorkflowBuilder(name)


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        pytest.param({"a": ["b"], "b": ["a"]}, "workflow 'w' has a cycle: a → b → a", id="cycle"),
        pytest.param({"a": ["a"]}, "workflow 'w' has a cycle: a → a", id="itself"),
        pytest.param(
            {"a": ["x"], "b": ["y", "a"]},
            "workflow 'w': task 'a' depends on unknown task 'x'; task 'b' depends on unknown task 'y'",
            id="every unknown dependency",
        ),
    ],
)
def test_a_graph_that_cannot_run_is_refused_and_not_registered(registry: Registry, needs: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as refusal:
        workflow(**needs)

    assert str(refusal.value) == message
    assert registry.workflows == {}


def test_a_workflow_tells_its_shape() -> None:
    shape = workflow(**DIAMOND)

    assert shape.topological_sort() == ["a", "b", "c", "d"]
    assert shape.get_execution_levels() == [["a"], ["b", "c"], ["d"]]
    assert (shape.get_roots(), shape.get_leaves()) == (["a"], ["d"])
    assert repr(shape) == "Workflow(name='w', tasks=['a', 'b', 'c', 'd'])"
    shape.validate()


def test_equal_definitions_have_equal_versions() -> None:
    assert workflow(**DIAMOND).version == workflow(**DIAMOND).version


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: workflow(**{**DIAMOND, "e": []}), id="another task"),
        pytest.param(lambda: workflow(**{**DIAMOND, "d": ["b"]}), id="another dependency"),
        pytest.param(lambda: workflow(description="new", **DIAMOND), id="another description"),
        pytest.param(lambda: workflow("v", **DIAMOND), id="another name"),
    ],
)
def test_the_version_changes_with_the_definition(other: Any) -> None:
    assert other().version != workflow(**DIAMOND).version


def test_the_version_changes_with_the_code_of_a_task() -> None:
    def version(function: Any) -> str:
        with cloaca.WorkflowBuilder("w") as builder:
            cloaca.task(id="only")(function)
        return builder.build().version

    assert version(lambda context: context.set("n", 1)) != version(lambda context: context.set("n", 2))


def test_the_version_is_the_same_in_every_process() -> None:
    code = """
import cloaca
with cloaca.WorkflowBuilder("w") as builder:
    @cloaca.task()
    def only(context):
        return context if context.get("a") in {"x", "y", "z", ("p", "q")} else None
print(builder.build().version)
"""
    versions = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(versions) == 1


def test_a_workflow_is_frozen() -> None:
    shape = workflow()
    with pytest.raises(AttributeError, match="Workflow is frozen"):
        shape.name = "other"  # type: ignore[misc]  # the mistake under test
    with pytest.raises(TypeError):
        shape.tasks["more"] = None  # type: ignore[index]  # the mistake under test


def test_a_constructor_registers_what_it_returns_under_the_name_given(registry: Registry) -> None:
    built = workflow("inner")
    cloaca.register_workflow_constructor("outer", lambda: built)

    assert registry.workflows["outer"].name == "outer"
    assert registry.workflows["outer"].tasks == built.tasks


def test_a_constructor_that_returns_something_else_is_refused() -> None:
    with pytest.raises(DefinitionError, match="the constructor of workflow 'w' returned int, not a Workflow"):
        cloaca.register_workflow_constructor("w", lambda: 7)  # type: ignore[arg-type, return-value]  # the mistake


def test_two_threads_may_define_workflows_at_the_same_time(registry: Registry) -> None:
    both_inside = threading.Barrier(2, timeout=10)

    def define(name: str) -> None:
        with cloaca.WorkflowBuilder(name):
            both_inside.wait()
            cloaca.task(id=f"{name}-task")(step)
            both_inside.wait()

    threads = [threading.Thread(target=define, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {name: list(found.tasks) for name, found in registry.workflows.items()} == {
        "one": ["one-task"],
        "two": ["two-task"],
    }


def test_a_block_inside_a_block_collects_its_own_tasks(registry: Registry) -> None:
    with cloaca.WorkflowBuilder("outer"):
        cloaca.task(id="before")(step)
        with cloaca.WorkflowBuilder("inner"):
            cloaca.task(id="inside")(step)
        cloaca.task(id="after")(step)

    assert list(registry.workflows["outer"].tasks) == ["before", "after"]
    assert list(registry.workflows["inner"].tasks) == ["inside"]


def test_a_builder_knows_tenant_package_and_workflow() -> None:
    builder = cloaca.WorkflowBuilder("w", tenant="acme", package="data")

    assert builder.context.as_components() == ("acme", "data", "w")
    assert cloaca.WorkflowBuilder("w").context == cloaca.WorkflowContext("public", "embedded", "w")
    assert str(cloaca.TaskNamespace("acme", "data", "w", "load")) == "acme::data::w::load"
