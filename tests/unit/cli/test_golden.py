"""What ``get`` and ``describe`` show, letter by letter. UPDATE_GOLDEN=1 writes the files anew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cloaca.cli.about_package import describe_package
from cloaca.cli.about_run import describe_run
from cloaca.cli.about_trigger import describe_trigger
from cloaca.cli.kinds import Kind
from cloaca.cli.output import Format, documents, names, tables
from cloaca.cli.page import Page
from cloaca.resources import KINDS, CloacinaPackage, Resource, Trigger, WorkflowRun

NOW = datetime(2026, 3, 28, 9, 0, tzinfo=timezone.utc)

World = list[Resource[Any, Any]]
Golden = Callable[[str, str], None]


@pytest.mark.parametrize(
    ("file", "kinds", "wide", "spaces"),
    [
        pytest.param("get-cpkg.txt", (CloacinaPackage,), False, False, id="packages"),
        pytest.param("get-cpkg-wide.txt", (CloacinaPackage,), True, False, id="packages, wide"),
        pytest.param("get-ctrig.txt", (Trigger,), False, False, id="triggers"),
        pytest.param("get-ctrig-wide.txt", (Trigger,), True, False, id="triggers, wide"),
        pytest.param("get-crun.txt", (WorkflowRun,), False, False, id="runs"),
        pytest.param("get-crun-wide-all-namespaces.txt", (WorkflowRun,), True, True, id="runs, wide, all namespaces"),
        pytest.param("get-all.txt", KINDS, False, False, id="several kinds"),
    ],
)
def test_a_table(file: str, kinds: tuple[Kind, ...], wide: bool, spaces: bool, world: World, golden: Golden) -> None:
    shown = [obj for obj in world if spaces or obj.metadata.namespace == "default"]
    golden(file, "\n".join(tables(kinds, shown, NOW, wide=wide, spaces=spaces)) + "\n")


def test_names(world: World, golden: Golden) -> None:
    golden("get-all.names", "\n".join(names(world)) + "\n")


@pytest.mark.parametrize("form", [Format.YAML, Format.JSON], ids=lambda form: form.value)
def test_a_document(form: Format, world: World, golden: Golden) -> None:
    golden(f"get-run.{form.value}", documents([_run(world, "data-ingest-inbox-watcher-7")], form, single=True) + "\n")


@pytest.mark.parametrize("name", ["data-ingest", "broken"])
def test_a_package_is_described(name: str, world: World, golden: Golden) -> None:
    package = next(obj for obj in world if isinstance(obj, CloacinaPackage) and obj.name == name)
    triggers = [obj for obj in world if isinstance(obj, Trigger) and obj.spec.package_ref.name == name]
    page = Page(NOW)
    describe_package(page, package, triggers, _runs(world) if name == "data-ingest" else [], "")
    golden(f"describe-cpkg-{name}.txt", "\n".join(page.lines) + "\n")


@pytest.mark.parametrize("name", ["data-ingest-inbox-watcher", "data-ingest-nightly"])
def test_a_trigger_is_described(name: str, world: World, golden: Golden) -> None:
    trigger = next(obj for obj in world if isinstance(obj, Trigger) and obj.name == name)
    page = Page(NOW)
    runs = [run for run in _runs(world) if run.spec.trigger_ref and run.spec.trigger_ref.name == name]
    describe_trigger(page, trigger, runs, "")
    golden(f"describe-ctrig-{name}.txt", "\n".join(page.lines) + "\n")


@pytest.mark.parametrize("name", ["data-ingest-inbox-watcher-6", "data-ingest-inbox-watcher-7", "by-hand"])
def test_a_run_is_described(name: str, world: World, golden: Golden) -> None:
    page = Page(NOW)
    describe_run(page, _run(world, name), Path("/home/me/.cloacina/logs/run.log"), "no daemon runs: start one")
    golden(f"describe-crun-{name}.txt", "\n".join(page.lines) + "\n")


def _runs(world: World) -> list[WorkflowRun]:
    return [obj for obj in world if isinstance(obj, WorkflowRun) and obj.metadata.namespace == "default"]


def _run(world: World, name: str) -> WorkflowRun:
    return next(obj for obj in world if isinstance(obj, WorkflowRun) and obj.name == name)
