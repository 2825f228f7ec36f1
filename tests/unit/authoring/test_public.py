"""``import cloaca``: light, complete, and its examples are true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cloaca
import cloaca.authoring
import cloaca.engine
import cloaca.library
from cloaca.authoring.retry import RetryPolicyBuilder
from cloaca.errors import CloacaError, VariableError

HEAVY = [
    "pydantic",
    "sqlite3",
    "asyncio",
    "yaml",
    "http",
    "logging",
    "dataclasses",
    "inspect",
    "typing",
    "json",
    "re",
    "enum",
    "threading",
    "concurrent",
    "datetime",
    "uuid",
    "hashlib",
    "subprocess",
    "socket",
    "ssl",
    "urllib",
    "email",
    "rich",
    "typer",
]

PROGRAM = """
import cloaca
with cloaca.WorkflowBuilder("w") as builder:
    @cloaca.task(dependencies=[])
    def only(context):
        context.set("n", [1, {"a": None}])
@cloaca.trigger(workflow="w", poll_interval="5s")
def inbox():
    return cloaca.TriggerResult.fire({"a": 1})
only(cloaca.Context({"b": 2.5}))
inbox()
"""


@pytest.mark.parametrize("program", ["import cloaca", PROGRAM], ids=["import", "a whole module of an author's"])
def test_importing_and_defining_loads_nothing_heavy(program: str) -> None:
    code = f"import sys\nbefore = set(sys.modules)\n{program}\nprint(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert [module for module in HEAVY if module in loaded] == []
    assert [
        module for module in loaded if module.startswith(("cloaca.engine", "cloaca.store", "cloaca.resources"))
    ] == []


@pytest.mark.parametrize("name", cloaca.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(cloaca, name) is not None
    assert name in dir(cloaca)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'cloaca' has no attribute 'Workflows'"):
        cloaca.Workflows  # noqa: B018  # reading it is the test


def test_the_smoke_tests_of_the_other_implementation_pass() -> None:
    assert cloaca.hello_world() == "Hello from Cloaca backend!"
    assert cloaca.HelloClass().get_message() == "Hello from HelloClass!"


def test_var_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOACINA_VAR_WAREHOUSE", "s3://x")

    assert cloaca.var("WAREHOUSE") == cloaca.var_or("WAREHOUSE", "other") == "s3://x"
    assert cloaca.var_or("MISSING", "other") == "other"


def test_var_names_the_variable_that_is_not_set() -> None:
    with pytest.raises(VariableError, match="set CLOACINA_VAR_MISSING in the environment") as error:
        cloaca.var("MISSING")

    assert isinstance(error.value, (CloacaError, KeyError))


MODULES = [
    module.name
    for package in (cloaca.authoring, cloaca.engine, cloaca.library)
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
]


def public_things() -> list[tuple[str, Any]]:
    """Every public name, and every method and property of those that are classes."""
    found = [(name, getattr(cloaca, name)) for name in cloaca.__all__]
    for owner in [thing for _, thing in found if inspect.isclass(thing)] + [RetryPolicyBuilder]:
        for name, member in inspect.getmembers(owner):
            own = member.fget if isinstance(member, property) else member
            if (
                not name.startswith("_")
                and inspect.isroutine(own)
                and str(getattr(own, "__module__", None)).startswith("cloaca")
            ):
                found.append((f"{owner.__name__}.{name}", own))
    return found


INTERNAL = {"TaskHandle.close", "TaskHandle.wait_for_run", "WorkflowBuilder.define"}  # for the engine and for @task
TYPED = (Path(__file__).parents[2] / "typing" / "public_api.py").read_text()


@pytest.mark.parametrize(("name", "thing"), public_things(), ids=[name for name, _ in public_things()])
def test_every_public_name_and_method_has_an_example(name: str, thing: Any) -> None:
    assert name in INTERNAL or ">>> " in (thing.__doc__ or "")


@pytest.mark.parametrize("name", [name for name, _ in public_things()])
def test_every_public_name_and_method_is_shown_to_the_type_checkers(name: str) -> None:
    """``make types`` has mypy and pyright check what it is there."""
    used = f".{name.rpartition('.')[2]}"
    assert name in INTERNAL or re.search(rf"{re.escape(used)}\b", TYPED)


@pytest.mark.parametrize("name", ["cloaca", "cloaca.errors", *MODULES])
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
