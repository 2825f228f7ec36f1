"""``get``, ``describe`` and ``watch``: which objects are found, and what is said where there are none."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import yaml
from rich.console import Console

from cloaca.cli.live import Snapshot, live_view
from cloaca.resources import RunPhase, Trigger, WorkflowRun
from cloaca.resources.documents import load_documents
from cloaca.store import Store, open_store


@pytest.fixture
def full(cloaca: Any, world: list[Any]) -> Any:
    """A home with every object of golden/world.yaml."""
    cloaca.put(*world)
    return cloaca


PACKAGES = "cloacinapackage.cloacina.io/broken\ncloacinapackage.cloacina.io/data-ingest\n"
TRIGGERS = "trigger.cloacina.io/data-ingest-inbox-watcher\ntrigger.cloacina.io/data-ingest-nightly\n"
RUNS = "workflowrun.cloacina.io/data-ingest-inbox-watcher-6\nworkflowrun.cloacina.io/data-ingest-inbox-watcher-7\n"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        pytest.param(["cpkg"], PACKAGES, id="short name"),
        pytest.param(["cloacinapackage"], PACKAGES, id="singular"),
        pytest.param(["CloacinaPackages"], PACKAGES, id="plural, in any case"),
        pytest.param(["cloacinapackages.cloacina.io"], PACKAGES, id="with the group"),
        pytest.param(["packages"], PACKAGES, id="as people say"),
        pytest.param(["cpkg,ctrig,crun"], PACKAGES + TRIGGERS + RUNS, id="several kinds"),
        pytest.param(["all"], PACKAGES + TRIGGERS + RUNS, id="all"),
        pytest.param(["cpkg,cpkg"], PACKAGES, id="a kind twice"),
        pytest.param(["cpkg", "broken"], PACKAGES.splitlines(True)[0], id="by name"),
        pytest.param(["cpkg/broken", "ctrig/data-ingest-nightly"], "", id="kind and name"),
        pytest.param(["crun", "-n", "team"], "workflowrun.cloacina.io/by-hand\n", id="namespace"),
        pytest.param(["crun", "-A"], RUNS + "workflowrun.cloacina.io/by-hand\n", id="all namespaces"),
        pytest.param(["crun", "-l", "cloacina.io/package=data-ingest"], RUNS, id="label"),
        pytest.param(["crun", "-l", "cloacina.io/package=data-ingest,cloacina.io/workflow=x"], "", id="two labels"),
    ],
)
def test_objects_are_found(words: list[str], found: str, full: Any) -> None:
    if len(words) == 2 and "/" in words[0]:
        found = PACKAGES.splitlines(True)[0] + TRIGGERS.splitlines(True)[1]
    said = full("get", *words, "-o", "name")
    assert (said.code, said.out, said.err) == (0, found, "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(
            ["cpgk"],
            "there is no kind 'cpgk': did you mean 'cpkg'?; kinds are cloacinapackages (cpkg), triggers (ctrig), "
            "workflowruns (crun)",
            id="unknown kind",
        ),
        pytest.param(
            ["cpkg", "brokn"],
            "there is no CloacinaPackage 'brokn' in namespace 'default': did you mean 'broken'?",
            id="unknown name",
        ),
        pytest.param(
            ["crun", "by-hand"],
            "there is no WorkflowRun 'by-hand' in namespace 'default'; there is one in 'team': add `-n team`",
            id="in another namespace",
        ),
        pytest.param(
            ["cpkg", "zzzzz"],
            "there is no CloacinaPackage 'zzzzz' in namespace 'default': see `cloaca get cpkg`",
            id="nothing like it",
        ),
        pytest.param(
            ["crun", "-l", "a!=b"],
            "the selector 'a!=b' cannot be read: write KEY=VALUE, several with commas between",
            id="selector",
        ),
        pytest.param(
            ["cpkg/broken", "ctrig"],
            "'ctrig' stands beside names with a '/': write each as KIND/NAME, or none",
            id="names mixed",
        ),
        pytest.param(
            ["cpkg,crun", "-w"], "-w follows one kind: ask for one, or use `cloaca watch` to see them all", id="watch"
        ),
        pytest.param(["crun/x", "-A"], "an object is in one namespace: leave out -A, or the names", id="-A and a name"),
    ],
)
def test_what_is_not_there_is_said(words: list[str], sentence: str, full: Any) -> None:
    said = full("get", *words)
    assert (said.code, said.out, said.err) == (1, "", f"Error: {sentence}\n")


def test_nothing_found_is_no_error(full: Any) -> None:
    said = full("get", "crun", "-n", "empty")
    assert (said.code, said.out, said.err) == (0, "", "No resources found in empty namespace.\n")
    said = full("get", "crun", "-A", "-l", "no=one")
    assert (said.code, said.out, said.err) == (0, "", "No resources found.\n")


def test_one_object_is_a_document_and_several_are_a_list(full: Any) -> None:
    one = json.loads(full("get", "cpkg", "broken", "-o", "json").out)
    many = yaml.safe_load(full("get", "cpkg", "-o", "yaml").out)
    assert (one["kind"], many["kind"], [item["kind"] for item in many["items"]]) == (
        "CloacinaPackage",
        "List",
        ["CloacinaPackage", "CloacinaPackage"],
    )
    assert [obj.name for obj in load_documents(full("get", "all", "-o", "yaml").out)] == [
        "broken",
        "data-ingest",
        "data-ingest-inbox-watcher",
        "data-ingest-nightly",
        "data-ingest-inbox-watcher-6",
        "data-ingest-inbox-watcher-7",
    ]


def test_description_of_several_objects(full: Any) -> None:
    said = full("describe", "cpkg,ctrig")
    assert [line for line in said.out.splitlines() if line.startswith("Name: ")] == [
        "Name:          broken",
        "Name:          data-ingest",
        "Name:          data-ingest-inbox-watcher",
        "Name:          data-ingest-nightly",
    ]
    assert "\x1b" not in said.out
    assert full("describe", "crun", "nope").code == 1


def test_watching_shows_a_row_for_each_change_until_interrupted(full: Any) -> None:
    command = [sys.executable, "-m", "cloaca.cli.main", "get", "ctrig", "-w"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        header, first, second = (process.stdout.readline() for _ in range(3))

        async def change(store: Store) -> None:
            trigger = await store.get(Trigger, "data-ingest-nightly")
            assert trigger is not None
            await store.update(trigger.with_spec(suspend=False))

        full.store(change)
        changed = process.stdout.readline()

        async def delete(store: Store) -> None:
            trigger = await store.get(Trigger, "data-ingest-nightly")
            assert trigger is not None
            await store.delete(trigger.ref)

        full.store(delete)
        gone = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.stderr.read()) == (130, "")
    assert header.split()[:3] == ["NAME", "PACKAGE", "WORKFLOW"]
    assert [first.split()[0], second.split()[0]] == ["data-ingest-inbox-watcher", "data-ingest-nightly"]
    assert ("true" in second, "false" in changed, "false" in gone) == (True, True, True)
    assert [line.index("data-ingest", 5) for line in (second, changed, gone)] == [second.index("data-ingest", 5)] * 3


def test_the_live_view_says_each_thing_once_and_ends_when_told(full: Any) -> None:
    out = io.StringIO()

    def until(seen: Snapshot) -> bool:
        return all(run.status.phase.finished for run in seen.runs)

    async def view() -> Snapshot:
        store = await open_store(str(full.home.database))
        viewing = asyncio.ensure_future(live_view(store, Console(file=out, width=200), until))
        await asyncio.sleep(0.2)
        run = await store.get(WorkflowRun, "by-hand", "team")
        assert run is not None
        await store.write_status(run.with_status(phase=RunPhase.CANCELLED))
        seen = await asyncio.wait_for(viewing, 10)
        await store.close()
        return seen

    seen = asyncio.run(view())
    assert [run.name for run in seen.runs] == [
        "data-ingest-inbox-watcher-6",
        "data-ingest-inbox-watcher-7",
        "by-hand",
    ]
    lines = out.getvalue().splitlines()
    assert len(lines) == len(set(lines))
    assert lines[-2:] == ["run by-hand: Pending", "run by-hand: Cancelled"]
    assert "trigger data-ingest-inbox-watcher: 08:57:50.000000 Fired data-ingest-inbox-watcher-7" in lines


def test_the_live_view_is_a_picture_at_a_terminal(full: Any) -> None:
    out = io.StringIO()
    console = Console(file=out, width=160, height=60, force_terminal=True)

    async def view() -> None:
        store = await open_store(str(full.home.database))
        await live_view(store, console, lambda _: True)
        await store.close()

    asyncio.run(view())
    for part in ("Packages", "Triggers", "Runs", "broken", "data-ingest-inbox-watcher-7", "load", "Completed", "\x1b["):
        assert part in out.getvalue()
